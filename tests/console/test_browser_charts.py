"""Charts and the pages of monitoring in a real Chromium, in both themes. With WAP_SCREENSHOTS=directory pictures are kept."""

import functools

import pytest
from playwright.sync_api import Page, expect

from console.fake.furnish import furnish
from tests.console.test_browser import CHROMIUM, Browser, Served, _overflow, browser, served
from tests.waiting import wait_until

__all__ = ["browser", "served"]  # fixtures

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine (Debian: apt-get install chromium)")

COLOURED = """(key) => {
  const canvas = document.querySelector(`[data-chart="${key}"] canvas`);
  if (!canvas) return 0;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let coloured = 0;
  for (let place = 0; place < data.length; place += 4) {
    const parts = [data[place], data[place + 1], data[place + 2]];
    const spread = Math.max(...parts) - Math.min(...parts);
    if (data[place + 3] > 60 && spread > 40) coloured += 1;
  }
  return coloured;
}"""
"""How many pixels of a chart have a colour: its lines; axes and their text are grey."""

PICTURE = '(key) => document.querySelector(`[data-chart="${key}"] canvas`).toDataURL()'
DRAWN = 200


@pytest.fixture
def fleet(served: Served) -> Served:
    served.fake.finish(furnish(served.fake))
    return served


def cluster_of(served: Served, name: str = "orders-prod") -> str:
    return next(one.id for one in served.fake.world.clusters.values() if one.name == name)


def node_of(served: Served, name: str = "orders-prod-rs0-0") -> str:
    return next(one.id for one in served.fake.world.nodes.values() if one.name == name)


def drawn(page: Page, key: str) -> int:
    coloured: int = page.evaluate(COLOURED, key)
    return coloured


def test_charts_are_drawn_in_both_themes(browser: Browser, fleet: Served) -> None:
    page = browser.page
    place = f"{fleet.url}/clusters/{cluster_of(fleet)}"
    browser.log_in(place)
    expect(page.get_by_role("img", name="CPU in %. rs0-0")).to_be_visible()
    wait_until(lambda: drawn(page, "cpu") > DRAWN, within=15)
    page.locator("[data-chart=cpu]").hover()
    expect(page.locator(".chart-tip", has_text="rs0-0").first).to_be_visible()
    # One crosshair: what is pointed at on one chart is told on the others too.
    expect(page.locator(".chart-tip", has_text="Query")).to_have_count(1)
    browser.picture("30-charts-light")

    whole = drawn(page, "cpu")
    page.locator("figure", has=page.locator("[data-chart=cpu]")).get_by_role("button", name="rs0-0").click()
    wait_until(lambda: drawn(page, "cpu") < whole, within=10)
    page.get_by_role("radio", name="7 d").click()
    expect(page.get_by_role("radio", name="7 d")).to_have_attribute("aria-checked", "true")
    expect(page.get_by_text("one point per 11 min")).to_be_visible()

    light = page.evaluate(PICTURE, "operations")
    page.get_by_role("button", name="Theme").click()  # auto -> light
    page.get_by_role("button", name="Theme").click()  # light -> dark
    wait_until(lambda: page.evaluate(PICTURE, "operations") != light, within=10)
    assert drawn(page, "operations") > DRAWN
    browser.picture("31-charts-dark")
    assert browser.problems == []
    assert browser.foreign == []


def test_a_real_time_chart_moves_by_itself(browser: Browser, fleet: Served) -> None:
    page = browser.page
    browser.log_in(f"{fleet.url}/clusters/{cluster_of(fleet)}/realtime")
    wait_until(lambda: drawn(page, "cpu") > DRAWN, within=15)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    first = page.evaluate(PICTURE, "cpu")
    wait_until(lambda: page.evaluate(PICTURE, "cpu") != first, within=15)
    assert not [url for url in asked if "/series" in url]  # the stream brought it
    browser.picture("32-realtime")
    page.get_by_role("button", name="Kill operation 4711").click()
    page.get_by_role("button", name="Kill operation", exact=True).click()
    expect(page.get_by_role("button", name="Kill operation 4711")).to_have_count(0)
    assert browser.problems == []


def test_hostile_names_stay_text_on_charts(browser: Browser, fleet: Served) -> None:
    payload = "<img src=x onerror=window.__broken=1>"

    def poison() -> None:
        for node in fleet.fake.world.nodes.values():
            node.name = payload + node.name

    fleet.fake.call(poison)
    page = browser.page
    browser.log_in(f"{fleet.url}/clusters/{cluster_of(fleet)}")
    wait_until(lambda: drawn(page, "cpu") > DRAWN, within=15)
    page.locator("[data-chart=cpu]").hover()
    expect(page.locator(".chart-tip", has_text=payload).first).to_be_visible()
    assert page.evaluate("window.__broken") is None
    assert browser.problems == []


def test_every_page_of_monitoring_in_both_themes_and_in_narrow_windows(browser: Browser, fleet: Served) -> None:
    page = browser.page
    browser.log_in(f"{fleet.url}/fleet")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    cluster, node = cluster_of(fleet), node_of(fleet)
    alert = next(iter(fleet.fake.world.alerts))
    places = {
        "fleet": "/fleet",
        "metrics": f"/clusters/{cluster}/metrics",
        "node": f"/nodes/{node}",
        "logs": f"/logs?cluster={cluster}",
        "slow-queries": f"/slow-queries?cluster={cluster}",
        "alerts": "/alerts",
        "alert": f"/alerts/{alert}",
        "alert-rules": "/alert-rules",
    }
    for theme in ("light", "dark"):
        browser.context.add_cookies([{"name": "wap_theme", "value": theme, "url": fleet.url}])
        for name, place in places.items():
            page.goto(fleet.url + place)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            expect(page.locator(".loading:visible, .skeleton:visible")).to_have_count(0)
            if name in ("metrics", "node", "alert"):
                key = page.locator("[data-chart]").first.get_attribute("data-chart") or ""
                wait_until(functools.partial(_has_lines, page, key), within=15)
            browser.picture(f"33-{name}-{theme}")
            if theme == "light":
                for width in (1280, 400):
                    page.set_viewport_size({"width": width, "height": 900})
                    browser.picture(f"34-{name}-{width}")
                    assert _overflow(page) <= 0, (name, width)
                page.set_viewport_size({"width": 1440, "height": 900})
    assert browser.problems == []
    assert browser.foreign == []


def _has_lines(page: Page, key: str) -> bool:
    return drawn(page, key) > DRAWN
