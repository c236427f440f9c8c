"""The console as a person meets it: its own process, a real Chromium, and every error that the browser tells counts.

With WAP_SCREENSHOTS=directory the pictures are kept there.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from console.fake import FakeControl, serve_in_thread
from tests.waiting import wait_until

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
PAGE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
MILLISECONDS = 15_000

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine (Debian: apt-get install chromium)")


@dataclass
class Served:
    """A console in its own process."""

    url: str
    fake: FakeControl
    log: Path


@dataclass
class Browser:
    """One person's browser; `problems` is what it complained about, `foreign` what it asked of other hosts."""

    page: Page
    context: BrowserContext
    pictures: Path
    problems: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def picture(self, name: str) -> None:
        """Keep what is seen now."""
        self.page.screenshot(path=self.pictures / f"{name}.png")

    def log_in(self, url: str) -> None:
        """As admin, from whatever page asks for it."""
        self.page.goto(url)
        self.page.get_by_label("User name").fill("admin")
        self.page.get_by_label("Password").fill("password")
        self.page.get_by_role("button", name="Sign in").click()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve_in_thread(FakeControl(step_seconds=0.15)) as fake, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        ca_file, log = tmp_path / "ca.pem", tmp_path / "console.log"
        ca_file.write_bytes(fake.ca_pem or b"")
        command = [
            sys.executable,
            "-m",
            "console",
            "--server",
            fake.endpoint,
            "--ca-file",
            str(ca_file),
            "--port",
            str(port),
        ]
        environment = {
            name: value for name, value in os.environ.items() if "NICEGUI" not in name and "PYTEST" not in name
        }
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path)
            try:
                wait_until(lambda: "Console: http" in log.read_text() or process.poll() is not None, within=30)
                assert process.poll() is None, log.read_text()
                yield Served(f"http://127.0.0.1:{port}", fake, log)
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=15) == 0, log.read_text()


@pytest.fixture
def browser(tmp_path: Path, served: Served) -> Iterator[Browser]:
    pictures = Path(os.environ.get("WAP_SCREENSHOTS") or tmp_path / "pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"),
            executable_path=CHROMIUM,
            args=FLAGS,
            headless=True,
            viewport={"width": 1440, "height": 900},
            color_scheme="light",
        )
        context.set_default_timeout(MILLISECONDS)
        expect.set_options(timeout=MILLISECONDS)
        one = Browser(context.new_page(), context, pictures)
        one.page.on("console", lambda told: one.problems.append(told.text) if told.type == "error" else None)
        one.page.on("pageerror", lambda error: one.problems.append(str(error)))
        one.page.on(
            "request", lambda asked: one.foreign.append(asked.url) if _is_foreign(asked.url, served.url) else None
        )
        yield one
        context.close()


def _is_foreign(asked: str, own: str) -> bool:
    return not asked.startswith((own, own.replace("http", "ws", 1), "data:", "blob:"))


def test_a_cluster_from_login_to_delete(browser: Browser, served: Served) -> None:
    page = browser.page
    page.goto(f"{served.url}/clusters")
    browser.picture("01-login")
    browser.log_in(f"{served.url}/clusters")
    expect(page.get_by_text("No clusters yet")).to_be_visible()
    browser.picture("02-no-clusters")

    page.get_by_role("link", name="Create cluster").first.click()
    page.get_by_label("Name").fill("orders-prod")
    expect(page.get_by_text("$215.04")).to_be_visible()
    browser.picture("03-wizard")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("radio", name="r6i.large").click()
    expect(page.get_by_text("$280.74")).to_be_visible()
    browser.picture("04-wizard-machines")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("Create VPC, subnets and security group")).to_be_visible()
    browser.picture("05-wizard-plan")
    served.fake.call(lambda: served.fake.engine.hold("initiate:rs0"))
    page.get_by_role("button", name="Create cluster").click()

    page.wait_for_url("**/operations/**")
    expect(page.get_by_text("Waiting for primary", exact=True)).to_be_visible()
    browser.picture("06-operation-running")
    served.fake.call(served.fake.engine.release)
    expect(page.get_by_text("Succeeded", exact=True)).to_be_visible()
    browser.picture("07-operation-done")

    page.get_by_role("link", name="Open cluster").click()
    expect(page.get_by_text("Takes writes")).to_be_visible()
    page.get_by_role("button", name="Show connection strings").click()
    expect(page.get_by_text("mongodb://wap-admin:****@").first).to_be_visible()
    browser.picture("08-cluster")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CA").click()
    assert download.value.suggested_filename == "orders-prod-ca.pem"
    assert "BEGIN CERTIFICATE" in download.value.path().read_text()

    page.get_by_role("button", name="Theme").click()  # auto -> light
    page.get_by_role("button", name="Theme").click()  # light -> dark
    assert page.locator("html").get_attribute("data-theme") == "dark"
    browser.picture("09-cluster-dark")
    page.reload()
    expect(page.get_by_text("Takes writes")).to_be_visible()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.locator("body.body--dark").count() == 1

    page.get_by_role("button", name="Delete").click()
    page.get_by_label("Type orders-prod to confirm").fill("orders-prod")
    browser.picture("10-delete-dark")
    page.get_by_role("button", name="Delete cluster").click()
    page.wait_for_url("**/operations/**")
    expect(page.get_by_text("Succeeded", exact=True)).to_be_visible()
    for name in ("clusters", "nodes", "operations", "audit", "access"):
        page.goto(f"{served.url}/{name}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.locator(".loading:visible")).to_have_count(0)
        browser.picture(f"11-{name}-dark")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert browser.problems == []
    assert browser.foreign == []
    assert not PAGE_ID.search(served.log.read_text())


def test_narrow_windows_need_no_sideways_scrolling(browser: Browser, served: Served) -> None:
    page = browser.page
    browser.log_in(f"{served.url}/clusters/new")
    page.get_by_label("Name").fill("orders-prod")
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 800})
        browser.picture(f"20-wizard-{width}")
        assert _overflow(page) <= 0
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Create cluster").click()
    page.wait_for_url("**/operations/**")
    expect(page.get_by_text("Succeeded", exact=True)).to_be_visible()
    places = [page.url.removeprefix(served.url), "/clusters", "/nodes", "/audit", "/access"]
    places.append(f"/clusters/{next(iter(served.fake.world.clusters))}")
    for place in places:
        page.goto(served.url + place)
        expect(page.locator(".loading:visible")).to_have_count(0)
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 800})
            browser.picture(f"20-{place.split('/')[1]}-{len(place.split('/')) - 2}-{width}")
            assert _overflow(page) <= 0, (place, width)
    assert browser.problems == []


def test_hostile_names_do_not_run_in_a_browser(browser: Browser, served: Served) -> None:
    payload = "<img src=x onerror=window.__broken=1>"
    page = browser.page
    browser.log_in(f"{served.url}/clusters/new")
    page.get_by_label("Name").fill("orders")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Create cluster").click()
    page.wait_for_url("**/operations/**")
    expect(page.get_by_text("Succeeded", exact=True)).to_be_visible()

    def poison() -> str:
        world = served.fake.world
        cluster = next(iter(world.clusters.values()))
        cluster.name = cluster.project_name = payload
        for member in cluster.members:
            member.name = member.problem = payload
        for node in world.nodes.values():
            node.name = node.host_name = payload
        for operation in world.operations.values():
            operation.cluster_name = operation.summary = payload
        world.touch()
        return cluster.id

    cluster_id = served.fake.call(poison)
    for place in ("clusters", f"clusters/{cluster_id}", "operations", "nodes", "audit"):
        page.goto(f"{served.url}/{place}")
        expect(page.locator(".loading:visible")).to_have_count(0)
        if place != "audit":
            expect(page.get_by_text(payload).first).to_be_visible()
        assert page.evaluate("window.__broken") is None
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.__broken=1>')")
    browser.problems.clear()  # the control: such markup is noticed, and the policy of the page still stops its script


def test_the_keyboard_is_enough(browser: Browser, served: Served) -> None:
    page = browser.page
    browser.log_in(f"{served.url}/clusters/new")
    name = page.get_by_label("Name")
    expect(name).to_be_visible()
    name.focus()
    page.keyboard.type("orders")
    members = page.get_by_role("radio", name="3 members")
    members.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="5 members")).to_have_attribute("aria-checked", "true")
    page.get_by_role("button", name="Continue").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Machines and storage")).to_be_visible()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline in ("solid", "auto", "none")
    assert browser.problems == []


def _overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    wide: int = page.evaluate(
        "Math.max(document.documentElement.scrollWidth - innerWidth,"
        " document.querySelector('#content').scrollWidth - document.querySelector('#content').clientWidth)"
    )
    return wide
