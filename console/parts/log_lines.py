"""Lines of logs as rows that open: what happened at a glance, all that the line says underneath."""

import json
from collections.abc import Sequence
from urllib.parse import urlencode

from wap.control.v1.log_pb2 import LogLine

from console.parts.markup import Html, h, joined
from console.parts.words import at

SEVERITIES = {"F": ("Fatal", "bad"), "E": ("Error", "bad"), "W": ("Warning", "caution"), "I": ("Info", "quiet")}
"""Letter -> word and tone; D1 to D5 are mongod's debug lines."""

MOST_SHOWN = 220
"""Characters of the attributes that stand in the row itself."""


def log_rows(lines: Sequence[LogLine]) -> Html:
    """The rows, in the order given."""
    return joined(_row(line) for line in lines)


def _row(line: LogLine) -> Html:
    name, tone = SEVERITIES.get(line.severity, ("Debug", "quiet"))
    short = h("span", line.attributes[:MOST_SHOWN], class_="log-more") if line.attributes not in ("", "{}") else None
    cells = (
        h("span", at(line.time), class_="log-time"),
        h("span", name, class_=f"pill {tone}"),
        h("span", line.node_name, class_="log-node", title=line.node_name),
        h("span", line.component, class_="log-component"),
        h("span", h("b", line.text), " ", short, class_="log-text"),
    )
    return h("details", h("summary", joined(cells)), _more(line), class_=f"log-line {tone}")


def _more(line: LogLine) -> Html:
    same = h(
        "a", f"Message {line.message_id}", href="/logs?" + urlencode({"node": line.node_id, "id": line.message_id})
    )
    node = h("a", line.node_name, href=f"/nodes/{line.node_id}")
    facts = joined(
        [h("span", node), h("span", same) if line.message_id else None, h("span", line.context or "no context")]
    )
    return h(
        "div", h("div", facts, class_="small muted dotted"), h("pre", _pretty(line.attributes)), class_="log-whole"
    )


def _pretty(attributes: str) -> str:
    try:
        return json.dumps(json.loads(attributes), indent=2, ensure_ascii=False)
    except ValueError:
        return attributes
