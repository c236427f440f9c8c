"""Access: API tokens for programs, the people who may sign in, and one's own password."""

from collections.abc import Sequence

from wap.control.v1 import access_pb2 as pb
from wap.control.v1.project_pb2 import ListProjectsRequest
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_ADMIN, ACCESS_ROLE_OPERATOR, ACCESS_ROLE_VIEWER, AccessRole

from console.frame import heading, loading
from console.live import polled
from console.parts.controls import Choice, Dialog, Once, Option, button, field
from console.parts.markup import Child, Html, box, change, h, joined, show
from console.parts.tables import Column, Table, empty
from console.parts.words import at, pill, sentence, since, word
from console.view import View

SECONDS = 5.0
EVERYWHERE = "*"
DAYS = (Option("7", "7 days"), Option("30", "30 days"), Option("90", "90 days"))
ROLES = (
    (ACCESS_ROLE_VIEWER, "Viewer", "Sees clusters and operations"),
    (ACCESS_ROLE_OPERATOR, "Operator", "Creates, connects and deletes"),
    (ACCESS_ROLE_ADMIN, "Admin", "Everything, also people and tokens"),
)

TOKEN_COLUMNS = (
    Column("Token"),
    Column("State"),
    Column("May"),
    Column("Ends"),
    Column("Last used", "wide-only muted"),
    Column("Made by", "wide-only"),
)
USER_COLUMNS = (
    Column("User"),
    Column("State"),
    Column("May"),
    Column("Last sign-in", "muted"),
    Column("Since", "wide-only"),
)


async def build(view: View) -> None:
    """Fill the page."""
    heading("Access", "Who and what may use this control plane")
    async with loading(view):
        projects = (await view.api.projects.ListProjects(ListProjectsRequest())).projects
    names = {project.id: project.name for project in projects}
    tokens = _Tokens(view, names)
    view.follow("tokens", lambda: polled(tokens.read, SECONDS), tokens.update)
    if view.session.role_in("") >= ACCESS_ROLE_ADMIN:
        users = _Users(view, names)
        view.follow("users", lambda: polled(users.read, SECONDS), users.update)
    _Password(view)


class _Tokens:
    def __init__(self, view: View, projects: dict[str, str]) -> None:
        self._view = view
        self._projects = projects
        self._by_id: dict[str, pb.Token] = {}
        self._revoking = ""
        with box("section-head"):
            show(h("h2", "API tokens"))
            button(view, "Create token", lambda: self._create_dialog.open(), icon="plus", mark="create-token")
        words = "A token lets a program use the API with no more rights than you give it."
        self._table = Table(TOKEN_COLUMNS, "tokens", "API tokens", empty("access", "No tokens", words), self._actions)
        self._create_dialog = Dialog("Create an API token", mark="token-dialog")
        with self._create_dialog.body:
            self._name = field("Name", hint="What uses it, for example “ci”.", mark="token-name")
            self._grant = _GrantChoice(view, projects, "token")
            self._days = Choice(view, "Valid for", DAYS, "30", _nothing, look="segments", mark="token-days")
        with self._create_dialog.foot:
            button(view, "Close", self._create_dialog.close)
            button(view, "Create token", self._create, kind="primary", mark="confirm-token")
        self._secret = Once("The new token", "Copy it now: it is not shown again.", view)
        self._revoke_dialog = Dialog("Revoke this token?", mark="revoke-dialog")
        with self._revoke_dialog.body:
            self._whom = show(Html(""))
        with self._revoke_dialog.foot:
            button(view, "Keep it", self._revoke_dialog.close)
            button(view, "Revoke token", self._revoke, kind="danger-solid", mark="confirm-revoke")

    async def read(self) -> list[pb.Token]:
        """All tokens, newest first."""
        return list((await self._view.api.access.ListTokens(pb.ListTokensRequest())).tokens)

    def update(self, tokens: Sequence[pb.Token]) -> None:
        """Show them."""
        self._by_id = {token.id: token for token in tokens if not token.revoked}
        self._table.update({key: _token_row(token, self._projects) for key, token in self._by_id.items()})

    def _actions(self, token_id: str) -> None:
        name = self._by_id[token_id].name
        button(
            self._view,
            "Revoke",
            lambda: self._ask_revoke(token_id),
            kind="danger small",
            mark=f"revoke:{name}",
            about=f"Revoke {name}",
        )

    async def _create(self) -> None:
        request = pb.CreateTokenRequest(
            name=(self._name.value or "").strip(), grants=[self._grant.grant()], expire_days=int(self._days.chosen)
        )
        with self._view.errors_to(self._create_dialog.complain):
            reply = await self._view.api.access.CreateToken(request)
        self._create_dialog.close()
        self._name.value = ""
        self._secret.reveal(reply.secret)
        self.update(await self.read())

    def _ask_revoke(self, token_id: str) -> None:
        self._revoking = token_id
        name = h("b", self._by_id[token_id].name)
        change(self._whom, h("p", "Programs that use ", name, " are refused within five seconds."))
        self._revoke_dialog.open()

    async def _revoke(self) -> None:
        with self._view.errors_to(self._revoke_dialog.complain):
            await self._view.api.access.RevokeToken(pb.RevokeTokenRequest(token_id=self._revoking))
        self._revoke_dialog.close()
        self.update(await self.read())


class _Users:
    def __init__(self, view: View, projects: dict[str, str]) -> None:
        self._view = view
        self._projects = projects
        self._by_id: dict[str, pb.User] = {}
        with box("section-head"):
            show(h("h2", "People"))
            button(view, "Add user", lambda: self._dialog.open(), icon="plus", mark="add-user")
        self._table = Table(USER_COLUMNS, "users", "People", empty("user", "No users", ""), self._actions)
        self._dialog = Dialog("Add a user", mark="user-dialog")
        with self._dialog.body:
            self._name = field("User name", mark="user-name")
            self._grant = _GrantChoice(view, projects, "user")
            show(h("p", "The first password is made for you and shown once.", class_="hint"))
        with self._dialog.foot:
            button(view, "Close", self._dialog.close)
            button(view, "Add user", self._create, kind="primary", mark="confirm-user")
        self._secret = Once("The first password", "Hand it over safely: it is not shown again.", view)

    async def read(self) -> list[pb.User]:
        """All users by name."""
        return list((await self._view.api.access.ListUsers(pb.ListUsersRequest())).users)

    def update(self, users: Sequence[pb.User]) -> None:
        """Show them."""
        # A user who was locked out is another row: its button says another thing.
        self._by_id = {f"{user.id}:{user.disabled}": user for user in users}
        self._table.update({key: _user_row(user, self._projects) for key, user in self._by_id.items()})

    def _actions(self, key: str) -> None:
        user = self._by_id[key]
        label = "Let in" if user.disabled else "Lock out"
        about = f"{label}: {user.username}"
        mark = f"lock:{user.username}"
        button(self._view, label, lambda: self._turn(user), kind="small", mark=mark, about=about)

    async def _turn(self, user: pb.User) -> None:
        request = pb.SetUserDisabledRequest(user_id=user.id, disabled=not user.disabled)
        reply = await self._view.api.access.SetUserDisabled(request)
        self.update(await self.read())
        self._view.say(f"{reply.user.username} {'is locked out' if reply.user.disabled else 'may sign in again'}")

    async def _create(self) -> None:
        request = pb.CreateUserRequest(username=(self._name.value or "").strip(), grants=[self._grant.grant()])
        with self._view.errors_to(self._dialog.complain):
            reply = await self._view.api.access.CreateUser(request)
        self._dialog.close()
        self._name.value = ""
        self._secret.reveal(reply.initial_password)
        self.update(await self.read())


class _Password:
    def __init__(self, view: View) -> None:
        self._view = view
        show(h("h2", "Your password"), classes="section-head")
        with box("panel"), box("panel-body form"):
            self._old = field("Current password", mark="old-password", secret=True, kind="current-password")
            self._new = field(
                "New password", hint="12 to 128 characters.", mark="new-password", secret=True, kind="new-password"
            )
            self._again = field("New password again", mark="again-password", secret=True, kind="new-password")
            self._problem = show(Html(""))
            with box("buttons"):
                button(view, "Change password", self._change, mark="change-password")

    async def _change(self) -> None:
        if self._new.value != self._again.value:
            change(
                self._problem, h("div", "The two new passwords are not the same.", class_="notice bad", role="alert")
            )
            return
        request = pb.ChangePasswordRequest(old_password=self._old.value or "", new_password=self._new.value or "")
        with self._view.errors_to(lambda told: change(self._problem, told)):
            await self._view.api.access.ChangePassword(request)
        change(self._problem, Html(""))
        for entry in (self._old, self._new, self._again):
            entry.value = ""
        self._view.say("The password is changed; your other sessions have ended")


class _GrantChoice:
    """One role, in one project or everywhere."""

    def __init__(self, view: View, projects: dict[str, str], mark: str) -> None:
        own = view.session.role_in("")
        scopes = [Option(EVERYWHERE, "All projects")] if own else []
        scopes += [Option(key, name) for key, name in projects.items()]
        highest = max((view.session.role_in(key) for key in ("", *projects)), default=own)
        roles = [Option(title, title, note) for role, title, note in ROLES if role <= highest]
        first_scope = scopes[0].value if scopes else EVERYWHERE
        self._role = Choice(view, "Role", roles, "Viewer", _nothing, mark=f"{mark}-role")
        self._scope = Choice(view, "In", scopes, first_scope, _nothing, look="segments", mark=f"{mark}-scope")

    def grant(self) -> pb.Grant:
        """What was chosen."""
        project = "" if self._scope.chosen == EVERYWHERE else self._scope.chosen
        role = next(role for role, title, _ in ROLES if title == self._role.chosen)
        return pb.Grant(project_id=project, role=role)


def _token_row(token: pb.Token, projects: dict[str, str]) -> Sequence[Child]:
    under = h("div", token.id, class_="small muted mono")
    return (
        joined([h("div", token.name, class_="row-name"), under]),
        pill("active"),
        _grants(token.grants, projects),
        since(token.expire_time),
        since(token.last_used_time),
        token.created_by.removeprefix("user:"),
    )


def _user_row(user: pb.User, projects: dict[str, str]) -> Sequence[Child]:
    return (
        h("div", user.username, class_="row-name"),
        pill("disabled" if user.disabled else "active"),
        _grants(user.grants, projects),
        since(user.last_login_time),
        at(user.create_time),
    )


def _grants(grants: Sequence[pb.Grant], projects: dict[str, str]) -> Html:
    def told(grant: pb.Grant) -> str:
        where = projects.get(grant.project_id, grant.project_id) if grant.project_id else "all projects"
        return f"{sentence(word(AccessRole.DESCRIPTOR, grant.role))} in {where}"

    return h("span", ", ".join(told(grant) for grant in grants) or "\N{EN DASH}")


def _nothing() -> None:
    """A choice that is read later only."""
