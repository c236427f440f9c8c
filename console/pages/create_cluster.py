"""The wizard: what kind of cluster, on which machines, where; then the plan with its cost; then it is created.

Every choice is judged by the control plane (`validate_only`): the summary shows its cost, the last step its whole plan.
"""

import asyncio
import uuid
from collections.abc import Sequence

from nicegui import background_tasks, ui
from wap.control.v1.cluster_pb2 import (
    CreateClusterResponse,
    InstanceTypeOption,
    ListCreateOptionsRequest,
    ListCreateOptionsResponse,
)
from wap.control.v1.operation_pb2 import Plan
from wap.control.v1.project_pb2 import CreateProjectRequest, ListProjectsRequest, Project
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_OPERATOR

from console.client import WapError
from console.client.wish import DEFAULT_DISK_GIB, PREFERRED_INSTANCE_TYPE, ReplicaSetWish, create_request
from console.design import ICONS
from console.frame import heading, loading
from console.parts.controls import Choice, Choices, Option, button, field
from console.parts.markup import Html, box, change, h, joined, show
from console.parts.tables import skeleton
from console.parts.timeline import plan_steps
from console.parts.words import count, money, zone_list
from console.view import View

STEPS = ("Cluster", "Machines", "Review")
MEMBERS = (
    Option("3", "3 members", "Survives the loss of one machine"),
    Option("5", "5 members", "Survives the loss of two machines"),
    Option("7", "7 members", "Survives the loss of three machines"),
)
USUAL_ZONES = 3
"""As many as the control plane picks by itself: the loss of one zone leaves a majority."""

ESTIMATE_PAUSE = 0.35
"""Seconds without a change after which the control plane is asked for the cost."""


async def build(view: View) -> None:
    """Fill the page."""
    with box("stack"):
        heading("Create cluster", crumbs=(("Clusters", "/clusters"),))
    async with loading(view):
        options = await view.api.clusters.ListCreateOptions(ListCreateOptionsRequest())
        reply = await view.api.projects.ListProjects(ListProjectsRequest())
    projects = [one for one in reply.projects if view.session.role_in(one.id) >= ACCESS_ROLE_OPERATOR]
    Wizard(view, options, projects)


class Wizard:
    """Three steps of one form, and the summary beside them. The wish is read from the form's controls each time."""

    def __init__(self, view: View, options: ListCreateOptionsResponse, projects: Sequence[Project]) -> None:
        self._view = view
        self._options = options
        self._projects = {project.name: project.id for project in projects}
        self._key = uuid.uuid4().hex
        self._here = 0
        self._estimating: asyncio.Task[None] | None = None
        with box("wizard"):
            self._progress = show(Html(""), "ol", "panel steps").props('aria-label="Steps"')
            with box("panel wizard-form"):
                self._panes = [self._cluster_pane(), self._machines_pane(), self._review_pane()]
                self._problem = show(Html(""), classes="dialog-error")
                self._foot()
            self._summary = show(Html(""), "aside", "panel summary").props('aria-label="Summary"')
        self._plan: CreateClusterResponse | None = None
        self._show_step()
        self._changed()

    def _cluster_pane(self) -> ui.element:
        with box("fields") as pane:
            show(h("h2", "Cluster"), classes="contents")
            self._name = field(
                "Name", hint="a-z, 0-9 and “-”, beginning with a letter; 2 to 40 characters.", mark="name"
            )
            self._name.on("update:model-value", self._view.authorised(self._changed), throttle=0.2)
            names = [Option(name, name) for name in self._projects]
            self._project: Choice | None = None
            if names:
                self._project = Choice(
                    self._view, "Project", names, names[0].value, self._changed, look="segments", mark="project"
                )
            else:
                self._new_project = field(
                    "Project", hint="There is no project yet: this name makes one.", mark="new-project"
                )
            versions = [Option(text, f"MongoDB {text}") for text in self._options.mongodb_versions]
            newest = versions[0].value if versions else ""
            self._version = Choice(
                self._view, "Version", versions, newest, self._changed, look="segments", mark="version"
            )
            self._members = Choice(self._view, "Members", MEMBERS, "3", self._changed, mark="members")
        return pane

    def _machines_pane(self) -> ui.element:
        options = self._options
        names = [one.name for one in options.instance_types]
        preferred = PREFERRED_INSTANCE_TYPE if PREFERRED_INSTANCE_TYPE in names else (names or [""])[0]
        with box("fields") as pane:
            show(h("h2", "Machines and storage"), classes="contents")
            types = [_instance_option(one) for one in options.instance_types]
            self._type = Choice(self._view, "Instance type", types, preferred, self._changed, mark="type")
            with box("field"):
                show(h("span", "Data disk per member"), classes="label")
                self._disk = ui.number(value=max(DEFAULT_DISK_GIB, options.disk_gib_min), precision=0)
                self._disk.props(
                    'outlined dense hide-bottom-space suffix="GiB" aria-label="Data disk per member in GiB"'
                ).mark("disk")
                self._disk.on("update:model-value", self._view.authorised(self._changed), throttle=0.2)
                limits = (
                    f"{options.disk_gib_min} to {options.disk_gib_max:,} GiB of encrypted gp3. It can grow, not shrink."
                )
                show(h("p", limits), classes="hint")
            zones = [Option(zone, zone) for zone in options.zones]
            with box("field"):
                self._zones = Choices(
                    self._view, f"Zones in {options.region}", zones, options.zones[:USUAL_ZONES], self._changed, "zone"
                )
                show(h("p", "Members are spread over these zones in turn."), classes="hint")
        return pane

    def _review_pane(self) -> ui.element:
        with box("fields") as pane:
            show(h("h2", "Review the plan"), classes="contents")
            show(
                h("p", "Nothing has been made yet. This is what WAP will do, in this order.", class_="muted"),
                classes="contents",
            )
            self._plan_shown = show(skeleton(), classes="plan-box")
        return pane

    def _foot(self) -> None:
        with box("wizard-foot"):
            self._back = button(self._view, "Back", self._go_back, mark="back")
            with box("buttons"):
                self._next = button(self._view, "Continue", self._go_on, kind="primary", mark="next")
                self._create = button(self._view, "Create cluster", self._do_create, kind="primary", mark="create")

    def _show_step(self) -> None:
        change(self._progress, _progress(self._here))
        for number, pane in enumerate(self._panes):
            pane.set_visibility(number == self._here)
        last = self._here == len(STEPS) - 1
        self._back.set_visibility(self._here > 0)
        self._next.set_visibility(not last)
        self._create.set_visibility(last)
        self._problem.set_visibility(False)

    async def _go_on(self) -> None:
        """Let the control plane judge what was entered so far before the next step."""
        await self._judge()
        self._here += 1
        self._show_step()

    def _go_back(self) -> None:
        self._here -= 1
        self._show_step()

    async def _judge(self) -> None:
        with self._view.errors_to(self._complain, "The control plane does not accept this"):
            await self._make_project()
            self._plan = await self._ask(validate_only=True)
        change(self._plan_shown, plan_steps(self._plan.plan))
        self._summarise(self._plan.plan)

    async def _do_create(self) -> None:
        with self._view.errors_to(self._complain, "The control plane does not accept this"):
            reply = await self._ask(validate_only=False)
        self._view.go(f"/operations/{reply.operation.id}")

    async def _make_project(self) -> None:
        if self._project is not None or self._new_project.value in self._projects:
            return
        reply = await self._view.api.projects.CreateProject(CreateProjectRequest(name=self._new_project.value or ""))
        self._projects[reply.project.name] = reply.project.id

    async def _ask(self, *, validate_only: bool) -> CreateClusterResponse:
        name, wish = self._wish()
        spec = wish.spec(self._options)
        request = create_request(self._project_id(), name, spec, validate_only=validate_only, idempotency_key=self._key)
        request.spec.replica_sets[0].size.disk_gib = wish.disk_gib  # 0 is not a wish for the default here
        reply: CreateClusterResponse = await self._view.api.clusters.CreateCluster(request)
        return reply

    def _wish(self) -> tuple[str, ReplicaSetWish]:
        given = self._disk.value
        disk = int(given) if isinstance(given, int | float) and 0 <= given < 2**32 else 0
        wish = ReplicaSetWish(
            members=int(self._members.chosen),
            instance_type=self._type.chosen,
            disk_gib=disk,
            zones=self._zones.chosen,
            version=self._version.chosen,
            region=self._options.region,
        )
        return (self._name.value or "").strip(), wish

    def _project_id(self) -> str:
        name = self._project.chosen if self._project is not None else str(self._new_project.value)
        return self._projects.get(name, "")

    def _complain(self, told: Html) -> None:
        change(self._problem, told)
        self._problem.set_visibility(True)

    def _changed(self) -> None:
        """Something was entered: show it, and ask for the cost once nothing changes any more."""
        self._key = uuid.uuid4().hex  # another wish is another request
        self._summarise(self._plan.plan if self._plan else None, stale=True)
        if self._estimating is not None:
            self._estimating.cancel()
        self._estimating = background_tasks.create(self._estimate(), name="estimate of a cluster's cost")

    async def _estimate(self) -> None:
        await asyncio.sleep(ESTIMATE_PAUSE)
        if not self._view.is_valid():
            return
        try:
            self._plan = await self._ask(validate_only=True)
        except WapError:
            return  # not complete yet: the button says what is wrong
        self._summarise(self._plan.plan)

    def _summarise(self, plan: Plan | None, *, stale: bool = False) -> None:
        name, wish = self._wish()
        change(self._summary, _summary(name, wish, plan, stale=stale))


def _instance_option(one: InstanceTypeOption) -> Option:
    memory = f"{one.memory_gib:g}"
    price = f"{money(one.usd_per_month)} / month"
    return Option(one.name, one.name, f"{one.vcpus} vCPU · {memory} GiB memory\n{price}")


def _progress(here: int) -> Html:
    lines = []
    for number, title in enumerate(STEPS):
        look = "past" if number < here else "here" if number == here else ""
        mark = h("i", ICONS["check"] if number < here else number + 1, aria_hidden="true")
        current = "step" if number == here else None
        lines.append(h("li", mark, h("span", title), class_=f"wizard-step {look}".strip(), aria_current=current))
    return joined(lines)


def _summary(name: str, wish: ReplicaSetWish, plan: Plan | None, *, stale: bool) -> Html:
    zones = zone_list(wish.zones) if wish.zones else "Chosen by WAP"
    rows: list[tuple[str, str]] = [
        ("Name", name or "\N{EN DASH}"),
        ("Topology", f"Replica set, {count(wish.members, 'member')}"),
        ("Version", f"MongoDB {wish.version}"),
        ("Region", wish.region),
        ("Zones", zones),
        ("Instance", wish.instance_type),
        ("Disk", f"{wish.disk_gib} GiB gp3 each"),
    ]
    facts = h("dl", joined(joined([h("dt", label), h("dd", value)]) for label, value in rows), class_="facts")
    return joined([h("h2", "Summary"), facts, cost(plan, stale=stale)])


def cost(plan: Plan | None, *, stale: bool = False) -> Html:
    """The estimate with its lines; a figure that may be old is pale."""
    if plan is None:
        words = h("p", "The estimate appears when the choices are complete.", class_="small muted")
        return joined([h("div", h("span", "Estimated AWS cost", class_="muted"), class_="total"), words])
    lines = joined(
        joined([h("dt", line.title), h("dd", money(line.usd_per_month), class_="num")]) for line in plan.cost_lines
    )
    look = "total muted" if stale else "total"
    total = h("div", h("span", "Per month", class_="muted"), h("b", money(plan.usd_per_month)), class_=look)
    note = h("p", plan.cost_note, class_="small muted") if plan.cost_note else None
    return joined([h("div", class_="total"), h("dl", lines, class_="facts"), total, note])
