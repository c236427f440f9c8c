"""`wap login`, `logout`, `whoami`, `password`. A password comes from a prompt or from stdin, never from the command line."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from wap.control.v1.access_pb2 import Caller, ChangePasswordRequest, GetCallerRequest, Grant, LogoutRequest
from wap.control.v1.project_pb2 import ListProjectsRequest
from wap.type.v1.cluster_pb2 import AccessRole

from console.cli.command import answering
from console.cli.failures import CommandError
from console.cli.session import Session, facts
from console.cli.text import moment, word
from console.client import Client, WapError
from console.client.config import Config, ConfigError, config_path, load_file, read_ca, save

PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")
]


def register(app: typer.Typer) -> None:
    """Put the commands on the root."""
    for function in (login, logout, whoami, password):
        app.command()(answering(function))


def login(
    session: Session,
    endpoint: Annotated[str | None, typer.Option(help="Address of the control plane, host:port.")] = None,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", help="CA certificate of the control plane (PEM); kept for later.")
    ] = None,
    username: Annotated[str | None, typer.Option("--username", "-u", help="User name.")] = None,
    password_stdin: PasswordStdin = False,
) -> None:
    """Log in, and remember the session and where the control plane is."""
    stored = session.config
    if ca_file is not None:
        stored = replace(stored, ca_pem=_ca_text(ca_file))
    stored = replace(stored, endpoint=endpoint or stored.endpoint, token="")
    session.use(stored)
    if not stored.endpoint:
        raise CommandError(
            "It is not known where the control plane is.", "wap login --endpoint HOST:PORT --ca-file FILE"
        )
    username = username or (typer.prompt("User name", default="admin", err=True) if session.can_ask else "")
    if not username:
        raise CommandError("The user name is missing.", "wap login --username NAME")
    secret = read_secret(session, "Password", from_stdin=password_stdin)
    with session.client(with_token=False) as client:
        caller = client.login(username, secret)
        _remember(session, replace(stored, token=client.token or ""))
        session.answer(caller, lambda: f"Logged in to {stored.endpoint} as {caller.display_name or username}.")


def logout(session: Session) -> None:
    """End the session here and on the control plane."""
    if session.config.token:
        try:
            with session.client() as client:
                client.access.Logout(LogoutRequest())
        except WapError as error:
            session.warn(f"The session could not be ended on the control plane: {error.message}")
    path = config_path()
    save(replace(load_file(path), token=""), path)
    session.answer(Caller(), lambda: "Logged out.")


def whoami(session: Session) -> None:
    """Show who is logged in, where, and with which roles."""
    with session.client() as client:
        caller = client.access.GetCaller(GetCallerRequest()).caller
        roles = grants_text(client, list(caller.grants))
        rows = [
            ("Caller", caller.actor),
            ("Roles", roles),
            ("Valid until", moment(caller.expire_time)),
            ("Control plane", session.config.endpoint),
            ("Default project", session.config.project),
        ]
        session.answer(caller, lambda: facts(rows))


def password(session: Session, password_stdin: PasswordStdin = False) -> None:
    """Change your password; your other sessions end. With --password-stdin: old and new on two lines."""
    with session.client() as client:
        old = read_secret(session, "Old password", from_stdin=password_stdin)
        new = read_secret(session, "New password (12 to 128 characters)", from_stdin=password_stdin, twice=True)
        reply = client.access.ChangePassword(ChangePasswordRequest(old_password=old, new_password=new))
        session.answer(reply, lambda: "Password changed; your other sessions have ended.")


def read_secret(session: Session, prompt: str, *, from_stdin: bool, twice: bool = False) -> str:
    """A secret from a hidden prompt or from the next line of stdin."""
    if from_stdin:
        line = sys.stdin.readline().rstrip("\r\n")
        if not line:
            raise CommandError(
                "There is no password on stdin.", "printf '%s\\n' \"$PASSWORD\" | wap ... --password-stdin"
            )
        return line
    if not session.can_ask:
        raise CommandError("A password is needed and nobody can be asked.", "Use --password-stdin.")
    return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=twice, err=True))


def grants_text(client: Client, grants: list[Grant]) -> str:
    """ "admin everywhere, viewer in demo"."""
    names: dict[str, str] = {}
    if any(grant.project_id for grant in grants):
        projects = client.projects.ListProjects(ListProjectsRequest()).projects
        names = {project.id: project.name for project in projects}
    texts = []
    for grant in grants:
        where = f"in {names.get(grant.project_id, grant.project_id)}" if grant.project_id else "everywhere"
        texts.append(f"{word(AccessRole.DESCRIPTOR, grant.role)} {where}")
    return ", ".join(texts) or "none"


def _ca_text(path: Path) -> str:
    try:
        return read_ca(path).decode()
    except ConfigError as error:
        raise CommandError(str(error), reason="CONFIG") from None
    except UnicodeDecodeError:
        raise CommandError(f"The CA file {path} is not PEM text.", reason="CONFIG") from None


def _remember(session: Session, config: Config) -> None:
    path = config_path()
    stored = load_file(path)
    # A project that came from the environment of this one call is not made the default.
    save(replace(config, project=stored.project), path)
    session.use(config)
