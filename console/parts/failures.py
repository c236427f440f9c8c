"""How an error looks: its sentence first, then field, given and allowed, and the request id for whoever reads the log."""

from wap.type.v1.failure_pb2 import Failure, FailureCode

from console.client import WapError
from console.design import ICONS
from console.parts.markup import Html, h, joined

ADVICE = {
    "CLOUD_CAPACITY": "AWS has no such machine free right now. Retry later, or create the cluster with another instance type.",
    "CLOUD_QUOTA": "The AWS account has reached a quota. Ask AWS to raise it, then retry.",
    "CLOUD_DENIED": "WAP's AWS credentials lack a permission. Grant it, then retry.",
    "CLOUD_THROTTLED": "AWS asked to slow down. Retry in a few minutes.",
    "CLOUD_UNAVAILABLE": "AWS could not be reached. Retry when it can.",
    "AGENT_SILENT": "The agent does not report. Look at the machine's console output, then retry.",
    "MONGOD_START_FAILED": "Look at mongod's log on the machine, then retry.",
    "MONGOD_UNREACHABLE": "mongod does not answer. Look at the machine, then retry.",
    "DISK_FULL": "The data volume is full. Make room on it, then retry.",
    "NOT_HEALTHY_IN_TIME": "The members did not become healthy in time. Look at them on the cluster page, then retry.",
    "OUTCOME_UNKNOWN": "It is not known whether the last step took effect. A retry looks first and does only what is missing.",
}
"""What to do about a failure, by reason."""

FALLBACK = (
    "Retry carries on where it stopped. Abandon gives the operation up and frees the cluster for other operations."
)


def describe(error: WapError) -> str:
    """One error as plain text on a few lines."""
    told = [f"{name}: {value}" for name, value in error.particulars().items()]
    request = [f"Request {error.request_id}"] if error.request_id else []
    return "\n".join([error.message, *told, f"{error.reason}", *request])


def error_panel(error: WapError, title: str = "This did not work") -> Html:
    """One error as a box on the page."""
    rows = [*error.particulars().items(), ("reason", error.reason)]
    if error.request_id:
        rows.append(("request", error.request_id))
    return _panel(title, error.message, rows)


def failure_panel(failure: Failure) -> Html:
    """Why an operation stopped, and what to do now."""
    reason = FailureCode.Name(failure.code).removeprefix("FAILURE_CODE_")
    every = [("field", failure.field), ("given", failure.given), ("allowed", failure.allowed), ("reason", reason)]
    rows = [(name, value) for name, value in every if value]
    return _panel(failure.message, ADVICE.get(reason, FALLBACK), rows)


def _panel(title: str, text: str, rows: list[tuple[str, str]]) -> Html:
    facts = joined(joined([h("dt", name.capitalize()), h("dd", value)]) for name, value in rows)
    words = h("div", h("h2", title), h("p", text), h("dl", facts, class_="facts inline"))
    return h("div", ICONS["alert"], words, class_="notice bad", role="alert")
