"""What goes wrong, in words on stderr and as an exit code."""

import json

import grpc

from console.cli.text import safe
from console.client import WapError

OK, FAILED, USAGE, NOT_FOUND, DENIED, CONFLICT, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

EXIT_CODES_HELP = (
    "Exit codes: 0 ok, 1 operation or call failed, 2 wrong usage or refused value, 3 not found, "
    "4 not logged in or not allowed, 5 conflict or busy, 6 control plane unavailable, 130 interrupted."
)

EXIT_BY_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: USAGE,
    grpc.StatusCode.OUT_OF_RANGE: USAGE,
    grpc.StatusCode.NOT_FOUND: NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: DENIED,
    grpc.StatusCode.PERMISSION_DENIED: DENIED,
    grpc.StatusCode.ALREADY_EXISTS: CONFLICT,
    grpc.StatusCode.ABORTED: CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: CONFLICT,
    grpc.StatusCode.UNAVAILABLE: UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: UNAVAILABLE,
}

EXIT_BY_REASON = {"QUOTA_EXCEEDED": CONFLICT, "TOO_MANY_ATTEMPTS": DENIED, "MESSAGE_TOO_LARGE": USAGE}
"""Reasons whose status alone says too little."""


class CommandError(Exception):
    """A command cannot go on; `hint` says what to do instead."""

    def __init__(self, message: str, hint: str = "", *, exit_code: int = USAGE, reason: str = "USAGE") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
        self.reason = reason


def exit_code(error: WapError) -> int:
    """The exit code for a failed call."""
    return EXIT_BY_REASON.get(error.reason, EXIT_BY_STATUS.get(error.code, FAILED))


def lines_for(error: WapError) -> list[str]:
    """At most two lines: what and why; then field, given, allowed and the request id."""
    told = [f"{name}: {value}" for name, value in error.particulars().items()]
    if error.request_id:
        told.append(f"request: {error.request_id}")
    if error.code is grpc.StatusCode.UNAUTHENTICATED and error.field != "password":
        told.append("log in with: wap login")
    lines = [f"Error: {error.message} [{error.reason}]"]
    return [safe(line) for line in (*lines, "  " + " · ".join(told))] if told else [safe(lines[0])]


def as_json(error: WapError | CommandError) -> str:
    """The same for programs, on one line."""
    if isinstance(error, CommandError):
        told = {"reason": error.reason, "message": error.message, "hint": error.hint}
    else:
        told = {"reason": error.reason, "status": error.code.name, "message": error.message}
        told |= error.particulars() | {"request_id": error.request_id}
    return json.dumps({"error": {name: value for name, value in told.items() if value}})
