"""What one mongod must be: the settings, checked field by field before anything on the node is touched."""

import base64
import binascii
import ipaddress
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.failure import refused

VOLUME_ID = re.compile(r"vol-[0-9a-f]{8,17}")
VERSION = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}(-[a-z0-9.]{1,20})?")
SHA256 = re.compile(r"[0-9a-f]{64}")
REPLICA_SET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# MongoDB: 6 to 1024 characters of the base64 set.
KEYFILE = re.compile(r"[A-Za-z0-9+/=]{6,1024}")
ROLES = ("data", "config")
MIN_PORT, MAX_PORT = 1024, 65535
# WiredTiger takes 0.25 GiB to 10 TB; MongoDB wants an oplog of 990 MB at least only when it is resized later.
MIN_CACHE_GIB, MAX_CACHE_GIB = 0.25, 10_000.0
MAX_OPLOG_MIB = 16 * 1024 * 1024
MAX_PEM = 64 * 1024


@dataclass(frozen=True)
class MongodSettings:
    """One mongod, without its secrets. `directory` or (`url` and `sha256`) is the distribution."""

    version: str
    directory: str
    url: str
    sha256: str
    volume_id: str
    replica_set: str
    role: str
    bind_ip: str
    port: int
    cache_gib: float
    oplog_mib: int

    @property
    def address(self) -> str:
        """host:port as members name it."""
        return f"[{self.bind_ip}]:{self.port}" if ":" in self.bind_ip else f"{self.bind_ip}:{self.port}"


@dataclass(frozen=True, repr=False)
class MongodSecrets:
    """Keyfile and certificates: they go to files of mode 0600 and nowhere else."""

    keyfile: str
    certificate_pem: str
    ca_pem: str


def check_volume_id(volume_id: str) -> None:
    """An EBS volume id; it becomes part of paths."""
    if not VOLUME_ID.fullmatch(volume_id):
        raise refused("volume_id", volume_id, "vol- and 8 to 17 hexadecimal digits")


def check_replica_set(name: str) -> None:
    """A replica set name."""
    if not REPLICA_SET.fullmatch(name):
        raise refused("replica_set", name, "1 to 64 letters, digits, '_' and '-', starting with a letter or digit")


def check_settings(settings: MongodSettings) -> None:
    """Raise INVALID_ARGUMENT for the first field that is not acceptable."""
    _check_distribution(settings)
    check_volume_id(settings.volume_id)
    check_replica_set(settings.replica_set)
    if settings.role not in ROLES:
        raise refused("role", settings.role, "REPLICA_SET_ROLE_DATA or REPLICA_SET_ROLE_CONFIG")
    _check_address(settings.bind_ip)
    if not MIN_PORT <= settings.port <= MAX_PORT:
        raise refused("port", settings.port, f"{MIN_PORT} to {MAX_PORT}")
    cache = settings.cache_gib
    if cache != 0 and not (math.isfinite(cache) and MIN_CACHE_GIB <= cache <= MAX_CACHE_GIB):
        raise refused("cache_gib", cache, f"0, or {MIN_CACHE_GIB} to {MAX_CACHE_GIB:.0f}")
    if settings.oplog_mib > MAX_OPLOG_MIB:
        raise refused("oplog_mib", settings.oplog_mib, f"0 to {MAX_OPLOG_MIB}")


def check_secrets(secrets: MongodSecrets, settings: MongodSettings, member_key_pem: str) -> None:
    """Raise INVALID_ARGUMENT where keyfile or certificates cannot work; nothing secret is in the failure."""
    if not KEYFILE.fullmatch(secrets.keyfile):
        raise refused("keyfile", f"{len(secrets.keyfile)} characters", "6 to 1024 base64 characters")
    _certificate("ca_pem", secrets.ca_pem)
    certificate = _certificate("certificate_pem", secrets.certificate_pem)
    key = serialization.load_pem_private_key(member_key_pem.encode(), password=None)
    if _public_bytes(certificate.public_key()) != _public_bytes(key.public_key()):
        raise refused("certificate_pem", "a certificate of another key", "a certificate for this node's CSR")
    if not certificate.not_valid_before_utc <= datetime.now(UTC) < certificate.not_valid_after_utc:
        raise refused("certificate_pem", f"valid until {certificate.not_valid_after_utc:%FT%TZ}", "valid now")
    if settings.bind_ip not in _addresses(certificate):
        raise refused("certificate_pem", "a certificate for other addresses", f"one for {settings.bind_ip}")


def _check_distribution(settings: MongodSettings) -> None:
    if not VERSION.fullmatch(settings.version):
        raise refused("distribution.version", settings.version, "a version like 6.0.5")
    if bool(settings.directory) == bool(settings.url):
        raise refused("distribution", "both or neither", "either directory, or url and sha256")
    if settings.directory:
        _check_directory(settings.directory)
        return
    if not settings.url.startswith("https://") or len(settings.url) > 2048 or not settings.url.isprintable():
        raise refused("distribution.url", settings.url, "an https:// address")
    if not SHA256.fullmatch(settings.sha256):
        raise refused("distribution.sha256", settings.sha256, "64 hexadecimal digits in lower case")


def _check_directory(directory: str) -> None:
    path = PurePosixPath(directory)
    plain = directory.isprintable() and len(directory) <= 1024
    if not (plain and path.is_absolute() and ".." not in path.parts):
        raise refused("distribution.directory", directory, "an absolute path without '..'")


def _check_address(bind_ip: str) -> None:
    try:
        address = ipaddress.ip_address(bind_ip)
    except ValueError:
        raise refused("bind_ip", bind_ip, "one IP address of this node") from None
    if address.is_unspecified or address.is_multicast or "%" in bind_ip:
        raise refused("bind_ip", bind_ip, "one IP address of this node, not all of them")


def _certificate(field: str, pem: str) -> x509.Certificate:
    try:
        if len(pem) > MAX_PEM:
            raise ValueError
        return x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, binascii.Error):
        raise refused(field, f"{len(pem)} characters", "one PEM certificate") from None


def _public_bytes(key: object) -> bytes:
    # Any public key type of `cryptography` has public_bytes; the union type does not say so to mypy.
    return base64.b64encode(
        key.public_bytes(  # type: ignore[attr-defined]
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _addresses(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(address) for address in names.get_values_for_type(x509.IPAddress)}
