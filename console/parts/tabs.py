"""The ways to look at one cluster or one node, as links above the page."""

from collections.abc import Sequence

from console.parts.markup import box, h, joined, show


def cluster_tabs(cluster_id: str, here: str) -> None:
    """The pages about one cluster; `here` is the title of the one that is open."""
    place = f"/clusters/{cluster_id}"
    _tabs(
        (
            ("Overview", place),
            ("Metrics", f"{place}/metrics"),
            ("Real-time", f"{place}/realtime"),
            ("Logs", f"/logs?cluster={cluster_id}"),
            ("Slow queries", f"/slow-queries?cluster={cluster_id}"),
            ("Alerts", f"/alerts?cluster={cluster_id}"),
        ),
        here,
    )


def node_tabs(node_id: str, here: str) -> None:
    """The pages about one node."""
    place = f"/nodes/{node_id}"
    _tabs(
        (
            ("Metrics", place),
            ("Real-time", f"{place}/realtime"),
            ("Logs", f"/logs?node={node_id}"),
            ("Slow queries", f"/slow-queries?node={node_id}"),
            ("Alerts", f"/alerts?node={node_id}"),
        ),
        here,
    )


def _tabs(items: Sequence[tuple[str, str]], here: str) -> None:
    links = joined(
        h("a", title, href=target, aria_current="page" if title == here else None) for title, target in items
    )
    with box("tabs", "nav", aria_label="Views"):
        show(links, classes="contents")
