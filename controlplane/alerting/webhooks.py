"""Messages by HTTP: signed webhooks and Slack-compatible ones, through one client that goes only where it may.

Signed as Standard Webhooks (standardwebhooks.com) has it, so that receivers check it with a library of their language:
header webhook-signature is "v1," and the base64 HMAC-SHA-256 of "<webhook-id>.<webhook-timestamp>.<body>".
"""

import asyncio
import base64
import binascii
import functools
import hashlib
import hmac
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from controlplane.alerting.addresses import resolve
from controlplane.domain.failure import WapFailure

TIMEOUT_SECONDS = 15.0
CONNECT_SECONDS = 5.0
PREFIX = "whsec_"
SHOWN = 200
# The receiver understood, and will not take this very message however often it is sent.
_PERMANENT = frozenset({400, 410, 413, 415, 422})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went. `detail` repeats no secret; `permanent`: the same message would be refused again."""

    delivered: bool
    detail: str = ""
    permanent: bool = False


def new_secret() -> str:
    """A secret for signatures: 256 bits in the form that Standard Webhooks' libraries take."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The key that a secret stands for; a text that is not "whsec_" and base64 stands for itself."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers by which a receiver knows that the message is ours, whole and fresh."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{digest}"}


async def post(
    url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool, timeout_seconds: float = TIMEOUT_SECONDS
) -> Outcome:
    """Send these bytes of JSON. Redirects are not followed: they could lead anywhere."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _post(httpx.URL(url), body, headers, allow_private)
    except TimeoutError:
        return Outcome(False, f"no answer within {timeout_seconds:g} s")
    except WapFailure as failure:
        return Outcome(False, str(failure))
    except httpx.HTTPError as error:
        return Outcome(False, f"{type(error).__name__}: {error}"[:SHOWN])


async def _post(url: httpx.URL, body: bytes, headers: Mapping[str, str], allow_private: bool) -> Outcome:
    port = url.port or (443 if url.scheme == "https" else 80)
    address = await resolve(url.host, port, allow_private=allow_private)
    sent = {"host": url.netloc.decode(), "content-type": "application/json", "user-agent": "wap-alerts", **headers}
    timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)  # the whole has its deadline already
    # No proxy from the environment: what it would call is not what was looked at.
    async with httpx.AsyncClient(verify=_trust(), timeout=timeout, follow_redirects=False, trust_env=False) as client:
        request = client.build_request("POST", url.copy_with(host=address), content=body, headers=sent)
        request.extensions["sni_hostname"] = url.host  # the certificate must be the name's
        response = await client.send(request, stream=True)  # an answer may be of any length, and is not looked at
        await response.aclose()
    return _judged(response)


@functools.cache
def _trust() -> ssl.SSLContext:
    """The machine's own certificate authorities: companies add theirs there."""
    return ssl.create_default_context()


def _judged(response: httpx.Response) -> Outcome:
    if response.is_success:
        return Outcome(True, f"HTTP {response.status_code}")
    if response.is_redirect:
        return Outcome(False, f"HTTP {response.status_code}: redirects are not followed; give the final address")
    detail = f"HTTP {response.status_code} {response.reason_phrase}"[:SHOWN]
    return Outcome(False, detail, permanent=response.status_code in _PERMANENT)
