"""One message through one channel: by mail, signed webhook and Slack, and where a webhook may not go."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from controlplane.alerting import webhooks
from controlplane.alerting.addresses import check_url, is_public, resolve
from controlplane.alerting.channels import ChannelKind, Channels
from controlplane.alerting.wording import test_notice as notice_of_a_test
from controlplane.domain.failure import Refused
from controlplane.store.alert_channels import Taken
from tests.alerting.receivers import MailServer, Receiver, certificate, listening

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
NOTICE: dict[str, Any] = {
    "event": "fired",
    "severity": "CRITICAL",
    "rule": "Disk nearly full",
    "cluster": "orders",
    "node": "orders-rs0-0",
    "summary": "Disk nearly full on node orders-rs0-0: host.disk.used_percent is 93 %, above 90 %",
    "advice": "Grow the volume now.",
}


def through(kind: ChannelKind, settings: dict[str, Any], secret: str = "", *notices: dict[str, Any]) -> Taken:
    return Taken("ch-1", "ops", kind, settings, secret, (7,), notices or (NOTICE,))


def mail(server: MailServer, secret: str = "", **settings: Any) -> Taken:
    fields = {"host": "127.0.0.1", "port": server.port, "from": "wap@example.com", "to": ["a@example.com"]}
    return through(ChannelKind.EMAIL, {**fields, "plaintext": True, **settings}, secret)


async def test_a_mail_says_what_where_and_what_to_do() -> None:
    async with listening(MailServer()) as server:
        outcome = await Channels().send(mail(server, to=["a@example.com", "b@example.org"]))
        assert outcome.delivered, outcome
    assert sorted(recipient for one in server.mails for recipient in one.recipients) == [
        "a@example.com",
        "b@example.org",
    ]
    first = server.mails[0]
    assert first.sender == "wap@example.com"
    assert first.message["subject"] == "[WAP] critical: Disk nearly full on orders-rs0-0"
    assert "93 %, above 90 %" in first.text
    assert "To do: Grow the volume now." in first.text
    assert first.message.get_content_type() == "text/plain"


async def test_a_mail_server_that_asks_for_a_password_gets_it() -> None:
    async with listening(MailServer(password="canary-mail-password")) as server:
        outcome = await Channels().send(mail(server, "canary-mail-password", username="wap"))
        assert outcome.delivered, outcome
        assert server.mails[0].user == "wap"
        wrong = await Channels().send(mail(server, "canary-wrong-password", username="wap"))
    assert not wrong.delivered
    assert "535" in wrong.detail
    assert "canary" not in wrong.detail


async def test_a_mail_goes_over_tls_and_only_to_a_server_with_a_good_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = certificate(tmp_path, "127.0.0.1")
    async with listening(MailServer(tls=tls)) as server:
        stranger = await Channels().send(mail(server, plaintext=False))
        assert not stranger.delivered
        assert "certificate" in stranger.detail.lower()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        trusted = await Channels().send(mail(server, plaintext=False))
        assert trusted.delivered, trusted
    assert [one.encrypted for one in server.mails] == [True]


async def test_a_mail_server_without_tls_gets_nothing_in_plain_text() -> None:
    async with listening(MailServer()) as server:
        outcome = await Channels().send(mail(server, plaintext=False))
    assert (outcome.delivered, server.mails) == (False, [])


async def test_why_a_mail_was_not_taken_is_shown() -> None:
    async with listening(MailServer(refuse="554 5.7.1 you are on a list")) as server:
        refused = await Channels().send(mail(server))
    assert not refused.delivered
    assert "you are on a list" in refused.detail
    nobody = await Channels().send(mail(server))
    assert not nobody.delivered
    assert "refused" in nobody.detail.lower()


async def test_mails_at_the_same_time_hear_only_of_their_own_failures() -> None:
    async with listening(MailServer()) as good, listening(MailServer(refuse="554 5.7.1 not today")) as bad:
        outcomes = await asyncio.gather(*(Channels().send(mail(server)) for server in (good, bad) * 4))
    assert [outcome.delivered for outcome in outcomes] == [True, False] * 4
    assert all("not today" in outcome.detail for outcome in outcomes[1::2])


async def test_a_line_break_in_a_name_adds_no_header_to_a_mail() -> None:
    async with listening(MailServer()) as server:
        hostile = {**NOTICE, "rule": "x\r\nBcc: victim@example.com\r\n\r\nhello"}
        message = mail(server)
        sent = Taken("ch-1", "ops", message.kind, message.settings, "", (7,), (hostile,))
        assert (await Channels().send(sent)).delivered
    assert server.mails[0].message["bcc"] is None
    assert server.mails[0].recipients == ["a@example.com"]


@pytest.mark.parametrize("host", ["169.254.169.254", "fd00:ec2::254"])
async def test_mail_goes_to_private_servers_but_not_to_the_metadata_service(host: str) -> None:
    outcome = await Channels().send(mail(MailServer(port=25), host=host))
    assert not outcome.delivered
    assert "not a public address" in outcome.detail


async def test_a_webhook_is_signed_as_standard_webhooks_has_it() -> None:
    async with listening(Receiver()) as receiver:
        outcome = await Channels(allow_private=True).send(through(ChannelKind.WEBHOOK, {"url": receiver.url}, SECRET))
        assert outcome.delivered, outcome
    (request,) = receiver.requests
    assert json.loads(request.body) == {"type": "wap.alerts", "alerts": [NOTICE]}
    message_id, moment = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    signed = f"{message_id}.{moment}.".encode() + request.body
    digest = hmac.new(b"0123456789abcdef0123456789abcdef", signed, hashlib.sha256).digest()
    assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_the_signature_of_the_standards_own_example() -> None:
    """From the test vectors of Standard Webhooks' libraries."""
    headers = webhooks.sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_message_has_the_same_id_when_it_is_sent_again() -> None:
    async with listening(Receiver()) as receiver:
        channels, message = Channels(allow_private=True), through(ChannelKind.WEBHOOK, {"url": receiver.url}, SECRET)
        await channels.send(message)
        await channels.send(message)
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1


async def test_slack_gets_a_text_in_which_names_are_only_names() -> None:
    hostile = {**NOTICE, "summary": "<!channel> & <https://evil.example|here>"}
    async with listening(Receiver()) as receiver:
        taken = through(ChannelKind.SLACK, {}, receiver.url, hostile)
        assert (await Channels(allow_private=True).send(taken)).delivered
    text = json.loads(receiver.requests[0].body)["text"]
    assert text.startswith("*[WAP] critical: Disk nearly full on orders-rs0-0*")
    assert "&lt;!channel&gt; &amp; " in text
    assert "<" not in text


async def test_a_storm_is_one_message_with_a_count() -> None:
    many = [{**NOTICE, "node": f"orders-rs0-{number}"} for number in range(50)]
    async with listening(MailServer()) as server:
        message = mail(server)
        storm = Taken("ch-1", "ops", message.kind, message.settings, "", tuple(range(50)), tuple(many))
        assert (await Channels().send(storm)).delivered
    assert server.mails[0].message["subject"] == "[WAP] 50 alerts: 50 firing, 0 resolved"
    assert "... and 30 more" in server.mails[0].text


@pytest.mark.parametrize(
    ("status", "permanent"),
    [("500 Oh", False), ("429 Slow", False), ("404 Gone", False), ("400 Bad", True), ("413 Large", True)],
)
async def test_what_a_receiver_answers_is_shown_and_judged(status: str, permanent: bool) -> None:
    async with listening(Receiver(status=status)) as receiver:
        outcome = await Channels(allow_private=True).send(through(ChannelKind.WEBHOOK, {"url": receiver.url}, SECRET))
    assert (outcome.delivered, outcome.permanent) == (False, permanent)
    assert status.split(" ")[0] in outcome.detail


async def test_redirects_are_not_followed() -> None:
    async with listening(Receiver()) as inside:
        async with listening(Receiver(status="302 Found", location=inside.url)) as receiver:
            taken = through(ChannelKind.WEBHOOK, {"url": receiver.url}, SECRET)
            outcome = await Channels(allow_private=True).send(taken)
        assert (outcome.delivered, inside.requests) == (False, [])
    assert "redirects are not followed" in outcome.detail


async def test_a_receiver_that_never_answers_is_given_up() -> None:
    async with listening(Receiver(silent=True)) as receiver:
        channels = Channels(allow_private=True, timeout_seconds=0.3)
        outcome = await channels.send(through(ChannelKind.WEBHOOK, {"url": receiver.url}, SECRET))
    assert not outcome.delivered
    assert outcome.detail


PRIVATE = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "localhost",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "[::1]",
    "[::]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::a00:1]",
    "[2002:a00:1::]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "224.0.0.1",
]


@pytest.mark.parametrize("host", PRIVATE)
async def test_a_webhook_does_not_go_inside(host: str) -> None:
    async with listening(Receiver()) as receiver:
        url = f"http://{host}:{receiver.port}/hook"
        outcome = await Channels().send(through(ChannelKind.WEBHOOK, {"url": url}, SECRET))
        assert (outcome.delivered, receiver.requests) == (False, [])
    assert "not a public address" in outcome.detail or "cannot be resolved" in outcome.detail


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "localhost"])
async def test_control_with_the_setting_it_does(host: str) -> None:
    async with listening(Receiver()) as receiver:
        url = f"http://{host}:{receiver.port}/hook"
        outcome = await Channels(allow_private=True).send(through(ChannelKind.WEBHOOK, {"url": url}, SECRET))
        assert (outcome.delivered, len(receiver.requests)) == (True, 1)


@pytest.mark.parametrize("address", ["8.8.8.8", "2600::1", "1.1.1.1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_what_is_public_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


async def test_the_metadata_service_is_closed_even_with_the_setting() -> None:
    with pytest.raises(Refused, match="not a public address"):
        await resolve("169.254.169.254", 80, allow_private=True)


class Names:
    """A DNS that gives another answer each time it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, answers: list[list[str]]) -> None:
        self.asked = 0
        real = socket.getaddrinfo

        def answer(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
            if host != name:
                return real(host, port, *arguments, **named)
            found = answers[min(self.asked, len(answers) - 1)]
            self.asked += 1
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

        monkeypatch.setattr(socket, "getaddrinfo", answer)


async def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, "two.test", [["8.8.8.8", "10.0.0.1"]])
    with pytest.raises(Refused, match=r"10\.0\.0\.1"):
        await resolve("two.test", 443, allow_private=False)


async def test_the_call_goes_to_the_address_that_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DNS that answers differently a moment later leads nowhere else: it is asked once."""
    async with listening(Receiver()) as receiver:
        names = Names(monkeypatch, "hooks.test", [["127.0.0.1"], ["127.0.0.9"]])
        url = f"http://hooks.test:{receiver.port}/hook"
        outcome = await Channels(allow_private=True).send(through(ChannelKind.WEBHOOK, {"url": url}, SECRET))
        assert outcome.delivered, outcome
    assert names.asked == 1
    assert receiver.requests[0].headers["host"] == f"hooks.test:{receiver.port}"


async def test_the_certificate_must_be_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, good in (("hooks.test", True), ("other.test", False)):
        folder = tmp_path / name
        folder.mkdir()
        tls = certificate(folder, name)
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        webhooks._trust.cache_clear()
        async with listening(Receiver(), tls=tls) as receiver:
            Names(monkeypatch, "hooks.test", [["127.0.0.1"]])
            url = f"https://hooks.test:{receiver.port}/hook"
            outcome = await Channels(allow_private=True).send(through(ChannelKind.WEBHOOK, {"url": url}, SECRET))
        assert outcome.delivered is good, outcome
    webhooks._trust.cache_clear()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com",
        "https://",
        "https://user:password@example.com/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://[::1/",
        "file:///etc/passwd",
        "https://exämple.com/",
        "https://example.com/" + "x" * 500,
        "https://example.com/a\nb",
        "",
    ],
)
def test_what_is_no_url_of_a_webhook(url: str) -> None:
    with pytest.raises(Refused) as refused:
        check_url("url", url, allow_private=False)
    assert "password" not in refused.value.details.given


def test_control_a_good_url() -> None:
    assert check_url("url", "https://example.com:8443/hook?x=1", allow_private=False)
    assert check_url("url", "http://10.0.0.1/hook", allow_private=True)


def test_a_test_message_says_that_it_is_one() -> None:
    assert "test message" in notice_of_a_test("ops")["summary"]
