"""One message through one channel. E-mail goes through apprise; what goes by HTTP does not.

apprise resolves names and follows redirects by itself, so the refusal of private addresses could not hold with it, and
of Slack-compatible receivers it knows only Slack's own host. Mattermost, Rocket.Chat and others take the same JSON.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import apprise

from controlplane.alerting import webhooks
from controlplane.alerting.addresses import resolve
from controlplane.alerting.webhooks import TIMEOUT_SECONDS, Outcome
from controlplane.alerting.wording import body, title
from controlplane.domain.clock import Clock, SystemClock
from controlplane.domain.failure import WapFailure
from controlplane.store.alert_channels import Taken

EMAIL_SECONDS = 30.0
SOCKET_SECONDS = 10.0
# The reason of a failure is said only here, and only at this level; it goes to the listeners below and to no log.
_LOGGER = logging.getLogger("apprise")
_LOGGER.setLevel(logging.DEBUG)
_LOGGER.propagate = False
_SLACK_MARKS = {"CRITICAL": ":red_circle:", "WARNING": ":large_yellow_circle:", "INFO": ":large_blue_circle:"}
# How apprise begins what a mail server or the network said; its other lines only tell that something went wrong.
_SAID = ("Socket Exception: ", "SMTP recipient ")


class ChannelKind(StrEnum):
    """Ways in which alerts reach people."""

    EMAIL = "EMAIL"
    WEBHOOK = "WEBHOOK"
    SLACK = "SLACK"


class Channels:
    """Sends. `allow_private`: whether webhooks may go to private and loopback addresses.

    `timeout_seconds`: the longest that the receiver of a webhook is waited for.
    """

    def __init__(
        self, *, allow_private: bool = False, timeout_seconds: float = TIMEOUT_SECONDS, clock: Clock | None = None
    ) -> None:
        self.allow_private, self._timeout_seconds = allow_private, timeout_seconds
        self._clock = clock or SystemClock()

    async def send(self, message: Taken) -> Outcome:
        """Send the notices as one message. Does not raise for what may go wrong on the way."""
        match ChannelKind(message.kind):
            case ChannelKind.EMAIL:
                return await self._email(message)
            case ChannelKind.WEBHOOK:
                return await self._webhook(message)
            case ChannelKind.SLACK:
                slack = {"text": _slack_text(message.notices)}
                return await self._post(message.secret, json.dumps(slack).encode(), {})

    async def _webhook(self, message: Taken) -> Outcome:
        content = json.dumps({"type": "wap.alerts", "alerts": list(message.notices)}).encode()
        # The same after a retry or a take-over, so that a receiver can tell a message that it has already.
        numbers = ",".join(map(str, message.delivery_ids)) or str(self._clock.now())
        message_id = "msg_" + hashlib.sha256(f"{message.channel_id}/{numbers}".encode()).hexdigest()[:32]
        headers = webhooks.sign(message.secret, message_id, int(self._clock.now().timestamp()), content)
        return await self._post(str(message.settings["url"]), content, headers)

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        return await webhooks.post(
            url, body, headers, allow_private=self.allow_private, timeout_seconds=self._timeout_seconds
        )

    async def _email(self, message: Taken) -> Outcome:
        host, port = str(message.settings["host"]), int(message.settings["port"])
        try:
            # A mail server inside the network is usual; the metadata service is none.
            await resolve(host, port, allow_private=True, field="host")
            async with asyncio.timeout(EMAIL_SECONDS):
                return await asyncio.to_thread(_send_email, message)
        except TimeoutError:
            return Outcome(False, f"the mail server did not take it within {EMAIL_SECONDS:.0f} s")
        except WapFailure as failure:
            return Outcome(False, str(failure))


def _slack_text(notices: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"*{_escaped(title(notices))}*"]
    for one in notices[:20]:
        mark = ":white_check_mark:" if one.get("event") == "resolved" else _SLACK_MARKS.get(str(one["severity"]), "")
        lines.append(f"{mark} {_escaped(body([one]))}")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """So that no name becomes a link or calls everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _send_email(message: Taken) -> Outcome:
    """In a thread: apprise speaks SMTP with blocking sockets."""
    settings = message.settings
    plaintext = bool(settings.get("plaintext"))
    plugin = apprise.Apprise.instantiate(
        {
            "schema": "mailto" if plaintext else "mailtos",
            "host": _domain(str(settings["from"])),
            "port": int(settings["port"]),
            "smtp_host": str(settings["host"]),
            "user": str(settings.get("username", "")) or None,
            "password": message.secret or None,
            "from_addr": str(settings["from"]),
            "targets": list(settings["to"]),
            "secure_mode": "insecure" if plaintext else "ssl" if int(settings["port"]) == 465 else "starttls",
            "format": "text",
            "cto": SOCKET_SECONDS,
        },
        suppress_exceptions=True,
    )
    if plugin is None:
        return Outcome(False, "the mail channel's settings are not usable")
    log = _Listener()
    _LOGGER.addHandler(log)
    try:
        sent = plugin.notify(title=title(message.notices), body=body(message.notices), body_format="text")
    finally:
        _LOGGER.removeHandler(log)
    return Outcome(True, f"taken by {settings['host']}") if sent else Outcome(False, log.reason(message.secret))


def _domain(address: str) -> str:
    return address.rpartition("@")[2].rstrip("> ")


class _Listener(logging.Handler):
    """What apprise says while one mail is sent by this thread: it returns no more than True or False."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._thread = logging.LogRecord("", 0, "", 0, "", None, None).thread
        self._said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what this thread was told by others."""
        text = record.getMessage()
        if record.thread == self._thread and text.startswith(_SAID):
            self._said.append(text.removeprefix(_SAID[0]))

    def reason(self, secret: str) -> str:
        """What was said last, without the password."""
        text = self._said[-1] if self._said else "the mail server did not take it"
        return (text.replace(secret, "***") if secret else text)[:200]
