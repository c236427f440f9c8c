"""How the sandbox says no: an EC2 error to a caller of the API, one sentence to whoever starts it."""


class Refusal(Exception):
    """An EC2 error to answer with: its code, its message, and the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class StartError(RuntimeError):
    """The sandbox cannot start; the message is one sentence for a person."""
