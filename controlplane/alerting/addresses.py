"""Where webhooks may go: out, and not back in.

Whoever may add a channel could otherwise have the control plane call its own network, its neighbours or the cloud's
metadata service. The name is resolved here, every address it has is looked at, and the call goes to the very address
that was looked at, so that a second answer of the DNS cannot lead elsewhere.
"""

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from controlplane.domain.failure import FailureCode, Refused, invalid

RESOLVE_SECONDS = 5.0
MAX_URL = 500
# Addresses inside which an IPv4 address is carried: NAT64 (RFC 6052) and the local one (RFC 8215).
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Whether the address is one of the open internet."""
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if any(address in network for network in _NAT64):
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.teredo is not None:
            return False
        if carried is not None:
            return is_public(carried)
    return address.is_global and not address.is_multicast


def is_metadata(address: Address) -> bool:
    """Link-local, as the cloud's metadata service is (IPv6: fd00:ec2::254): nobody's mail server or receiver."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_link_local
    return address.is_link_local or address == ipaddress.ip_address("fd00:ec2::254")


def check_url(field: str, url: str, *, allow_private: bool) -> str:
    """The URL of a webhook, or a refusal. Plain http:// only where private addresses are allowed: alerts name things."""
    allowed = "https:// or http://" if allow_private else "https://"
    allowed += " and a host name, without user name and password"
    try:
        parts = urlsplit(url)
        bad = not parts.hostname or parts.username is not None or parts.password is not None or parts.port == 0
    except ValueError:  # brackets or port that make no sense
        raise invalid(field, "", allowed) from None
    schemes = {"https", "http"} if allow_private else {"https"}
    if bad or parts.scheme not in schemes or len(url) > MAX_URL or not url.isascii() or not url.isprintable():
        raise invalid(field, f"{parts.scheme}://{parts.hostname or ''}", allowed)
    return url


async def resolve(host: str, port: int, *, allow_private: bool, field: str = "url") -> str:
    """An address of the host that may be called. Refused when any address of it may not."""
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        raise Refused(
            FailureCode.UNAVAILABLE, f"the name {host} cannot be resolved", field=field, given=host, retryable=True
        ) from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        if is_metadata(address) or not (allow_private or is_public(address)):
            raise invalid(
                field,
                host,
                "a host whose addresses are all public (setting allow_private_webhooks lifts this)",
                f"{host} leads to {address}, which is not a public address",
            )
    # IPv4 first: not every control plane has an IPv6 route.
    return str(min(addresses, key=lambda address: address.version))
