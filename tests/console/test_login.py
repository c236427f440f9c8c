"""Signing in and out, and what a session is worth."""

import pytest

from console.pages.login import safe_path
from tests.console.conftest import Console


async def test_a_stranger_is_sent_to_the_login_and_back(console: Console) -> None:
    browser = console.browser()
    sent = await browser.get("/operations")
    assert (sent.status_code, sent.headers["location"]) == (303, "/login?next=/operations")
    form = await browser.get(sent.headers["location"])
    assert 'name="next" value="/operations"' in form.text
    answer = await browser.post("/login", data={"username": "admin", "password": "password", "next": "/operations"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/operations")
    assert (await browser.get("/operations")).status_code == 200


async def test_the_cookie_cannot_be_read_by_scripts_or_sent_by_other_sites(console: Console) -> None:
    answer = await console.browser().post("/login", data={"username": "admin", "password": "password"})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie


async def test_by_tls_the_cookie_is_secure_and_bound_to_the_host(console: Console) -> None:
    browser = console.browser(origin="https://console.test")
    browser.base_url = "https://console.test"
    answer = await browser.post("/login", data={"username": "admin", "password": "password"})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-wap_console=")
    assert "secure" in cookie.lower()
    assert (await browser.get("/clusters")).status_code == 200


async def test_a_wrong_password_says_so_and_sets_no_cookie(console: Console) -> None:
    answer = await console.browser().post("/login", data={"username": "admin", "password": "wrong"})
    assert answer.status_code == 401
    assert "User name or password is wrong." in answer.text
    assert "set-cookie" not in answer.headers
    assert 'value="admin"' in answer.text  # the name need not be typed again


async def test_too_many_wrong_passwords_are_told_apart(console: Console) -> None:
    browser = console.browser()
    for _ in range(6):
        answer = await browser.post("/login", data={"username": "admin", "password": "wrong"})
    assert "Too many wrong passwords" in answer.text


async def test_without_a_control_plane_the_login_says_so(console: Console) -> None:
    await console.fake.stop()
    answer = await console.browser().post("/login", data={"username": "admin", "password": "password"})
    assert answer.status_code == 503
    assert "cannot be reached" in answer.text


async def test_a_login_makes_a_new_id_and_ends_the_old_one(console: Console) -> None:
    """Session fixation: an id that was known before the login is worth nothing after it."""
    browser = console.browser()
    browser.cookies.set("wap_console", "chosen-by-an-attacker", domain="console.test")
    await browser.post("/login", data={"username": "admin", "password": "password"})
    first = browser.cookies.get("wap_console", domain="console.test", path="/")
    await browser.post("/login", data={"username": "admin", "password": "password"})
    for dead in ("chosen-by-an-attacker", first):
        stranger = console.browser()
        stranger.cookies.set("wap_console", str(dead), domain="console.test")
        assert (await stranger.get("/clusters")).status_code == 303
    assert (await browser.get("/clusters")).status_code == 200


async def test_signing_out_ends_the_session_here_and_at_the_control_plane(console: Console) -> None:
    browser = console.browser()
    await browser.post("/login", data={"username": "admin", "password": "password"})
    cookie = browser.cookies.get("wap_console")
    assert len(console.fake.world.session_users) == 1
    answer = await browser.post("/logout")
    assert answer.headers["location"] == "/login"
    assert not console.fake.world.session_users
    browser.cookies.set("wap_console", str(cookie), domain="console.test")
    assert (await browser.get("/clusters")).status_code == 303


@pytest.mark.parametrize(
    "wanted", ["/clusters", "/clusters/new", "/operations/op-01", "/access", "/clusters/cl-0001ab"]
)
def test_the_way_back_leads_to_pages_of_the_console(wanted: str) -> None:
    assert safe_path(wanted) == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\\evil.example",
        "/clusters\n",
        "/static/x",
        "",
        "/%2f/e",
    ],
)
def test_the_way_back_leads_nowhere_else(wanted: str) -> None:
    assert safe_path(wanted) == "/clusters"
