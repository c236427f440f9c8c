"""Asking before something happens that cannot be taken back."""

import typer

from console.cli.failures import FAILED, CommandError
from console.cli.session import Session


def confirm_name(session: Session, kind: str, name: str, given: str | None) -> str:
    """The typed name; CommandError where it is not the thing's name or nobody can be asked."""
    if given is None:
        if not session.can_ask:
            raise CommandError(f"Deleting a {kind} needs its name once more.", f"Use --confirm {name}.")
        given = str(typer.prompt(f"Type the name of the {kind} to delete it", err=True))
    if given != name:
        raise CommandError(
            f"The typed name is not the name of the {kind}; nothing was deleted.",
            f"field: confirm · given: {given[:80]} · allowed: {name}",
            reason="NAME_NOT_CONFIRMED",
        )
    return given


def confirm(session: Session, question: str, *, yes: bool) -> None:
    """Go on only after a yes."""
    if yes:
        return
    if not session.can_ask:
        raise CommandError("This needs a confirmation and nobody can be asked.", "Use --yes.")
    if not typer.confirm(question, err=True):
        raise CommandError("Nothing was changed.", exit_code=FAILED, reason="NOT_CONFIRMED")
