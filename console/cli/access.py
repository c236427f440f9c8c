"""`wap user` and `wap token`: who may come in, as a person or as a program."""

from enum import StrEnum
from typing import Annotated

import typer
from wap.control.v1 import access_pb2 as pb
from wap.type.v1.cluster_pb2 import AccessRole

from console.cli.command import Commands, YesOption
from console.cli.completion import project_names
from console.cli.confirm import confirm
from console.cli.failures import NOT_FOUND, CommandError
from console.cli.login import PasswordStdin, grants_text, read_secret
from console.cli.session import Session, table
from console.cli.text import ago, moment, safe, state
from console.client import Client

users = Commands("Users: people who can log in.")
tokens = Commands("API tokens: programs that can call.")


class Role(StrEnum):
    """What a user or token may do."""

    viewer = "viewer"
    operator = "operator"
    admin = "admin"


RoleOption = Annotated[Role, typer.Option(help="What is allowed: see, change clusters, or everything.")]
GrantProjects = Annotated[
    list[str] | None,
    typer.Option("--project", "-p", help="Only in this project; may be repeated.", autocompletion=project_names),
]
Everywhere = Annotated[bool, typer.Option("--everywhere", help="In all projects, also later ones.")]


@users.command("create")
def create_user(
    session: Session,
    username: Annotated[str, typer.Argument(metavar="USERNAME")],
    role: RoleOption = Role.viewer,
    project: GrantProjects = None,
    everywhere: Everywhere = False,
    password_stdin: PasswordStdin = False,
) -> None:
    """Make a user. Without --password-stdin the control plane makes the password, shown this once."""
    with session.client() as client:
        grants = _grants(client, role, project, everywhere)
        secret = read_secret(session, "Password", from_stdin=True) if password_stdin else ""
        reply = client.access.CreateUser(pb.CreateUserRequest(username=username, password=secret, grants=grants))
    session.answer(reply, lambda: f"User {safe(reply.user.username)} created ({reply.user.id}).")
    if reply.initial_password:
        session.say(f"First password, shown this once: {reply.initial_password}", "bold")


@users.command("list")
def list_users(session: Session) -> None:
    """List all users."""
    with session.client() as client:
        reply = client.access.ListUsers(pb.ListUsersRequest())
        rows = [
            (
                one.username,
                state("disabled" if one.disabled else "active"),
                grants_text(client, list(one.grants)),
                ago(one.last_login_time),
                ago(one.create_time),
                one.id,
            )
            for one in reply.users
        ]
    columns = ("NAME", "STATE", "ROLES", "LAST LOGIN", "CREATED", "ID")
    session.answer(reply, lambda: table(columns, rows, empty="No users."))


@users.command("disable")
def disable_user(session: Session, username: Annotated[str, typer.Argument(metavar="USERNAME")]) -> None:
    """Lock a user out within five seconds."""
    _set_disabled(session, username, disabled=True)


@users.command("enable")
def enable_user(session: Session, username: Annotated[str, typer.Argument(metavar="USERNAME")]) -> None:
    """Let a user in again."""
    _set_disabled(session, username, disabled=False)


@tokens.command("create")
def create_token(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    role: RoleOption = Role.viewer,
    project: GrantProjects = None,
    everywhere: Everywhere = False,
    expire_days: Annotated[int, typer.Option(min=1, max=90, help="Days until it expires.")] = 30,
) -> None:
    """Make an API token; its text is shown this once."""
    with session.client() as client:
        grants = _grants(client, role, project, everywhere)
        request = pb.CreateTokenRequest(name=name, grants=grants, expire_days=expire_days)
        reply = client.access.CreateToken(request)
    session.answer(
        reply, lambda: f"Token {safe(reply.token.name)} created; it expires {moment(reply.token.expire_time)}."
    )
    session.say(f"Shown this once: {reply.secret}", "bold")


@tokens.command("list")
def list_tokens(session: Session) -> None:
    """List API tokens, newest first, without their text."""
    with session.client() as client:
        reply = client.access.ListTokens(pb.ListTokensRequest())
        rows = [
            (
                one.name,
                state("revoked" if one.revoked else "active"),
                grants_text(client, list(one.grants)),
                moment(one.expire_time),
                ago(one.last_used_time),
                one.created_by,
                one.id,
            )
            for one in reply.tokens
        ]
    columns = ("NAME", "STATE", "ROLES", "EXPIRES", "LAST USED", "BY", "ID")
    session.answer(reply, lambda: table(columns, rows, empty="No tokens."))


@tokens.command("revoke")
def revoke_token(
    session: Session, name: Annotated[str, typer.Argument(metavar="NAME", help="Name or id.")], yes: YesOption = False
) -> None:
    """End an API token within five seconds."""
    with session.client() as client:
        found = [one for one in client.access.ListTokens(pb.ListTokensRequest()).tokens if name == one.id]
        if not found:
            every = client.access.ListTokens(pb.ListTokensRequest()).tokens
            found = [one for one in every if name == one.name and not one.revoked]
        if len(found) != 1:
            raise _not_one("token", name, len(found))
        confirm(session, f"Revoke the token {name}?", yes=yes)
        token = client.access.RevokeToken(pb.RevokeTokenRequest(token_id=found[0].id)).token
    session.answer(token, lambda: f"Token {safe(token.name)} revoked.")


def _set_disabled(session: Session, username: str, *, disabled: bool) -> None:
    with session.client() as client:
        every = client.access.ListUsers(pb.ListUsersRequest()).users
        found = [one for one in every if username in (one.username, one.id)]
        if len(found) != 1:
            raise _not_one("user", username, len(found))
        request = pb.SetUserDisabledRequest(user_id=found[0].id, disabled=disabled)
        user = client.access.SetUserDisabled(request).user
    session.answer(user, lambda: f"User {safe(user.username)} {'disabled' if disabled else 'enabled'}.")


def _grants(client: Client, role: Role, projects: list[str] | None, everywhere: bool) -> list[pb.Grant]:
    if bool(projects) == everywhere:
        raise CommandError("It must be said where the role counts.", "Use --project NAME (repeatable) or --everywhere.")
    number = AccessRole.Value(f"ACCESS_ROLE_{role.value.upper()}")
    if everywhere:
        return [pb.Grant(role=number)]
    return [pb.Grant(project_id=client.project(name).id, role=number) for name in projects or ()]


def _not_one(kind: str, name: str, count: int) -> CommandError:
    if count:
        return CommandError(f"{count} {kind}s are named {name}.", f"Use the id: wap {kind} list")
    return CommandError(f"There is no {kind} {name}.", f"wap {kind} list", exit_code=NOT_FOUND, reason="NOT_FOUND")
