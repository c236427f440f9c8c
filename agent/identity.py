"""Who this agent is: a key made here, and the certificate that the control plane gave for it."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.files import write_private


@dataclass(frozen=True, repr=False)
class Identity:
    """One file holds it all, so that a renewal with a new key is atomic. Without a certificate: not enrolled yet."""

    key_pem: str
    certificate_pem: str = ""
    ca_pem: str = ""
    agent_endpoint: str = ""
    # Seconds since the epoch by this node's clock, at the moment the certificate came. Its own beginning is no measure:
    # it is backdated for nodes whose clock is behind.
    obtained_at: float = 0.0

    @property
    def enrolled(self) -> bool:
        """Whether the control plane has signed it."""
        return bool(self.certificate_pem)

    @property
    def certificate(self) -> x509.Certificate:
        """The agent's certificate."""
        return x509.load_pem_x509_certificate(self.certificate_pem.encode())

    def problem(self) -> str:
        """What is wrong with the certificate, in a sentence; empty when it can be used.

        On the wire every refused handshake looks the same (UNAVAILABLE), so the agent looks at its own file.
        """
        now, certificate = datetime.now(UTC), self.certificate
        if now >= certificate.not_valid_after_utc:
            return f"this agent's certificate expired at {certificate.not_valid_after_utc:%FT%TZ}"
        if now < certificate.not_valid_before_utc:
            return f"this agent's certificate is valid from {certificate.not_valid_before_utc:%FT%TZ}: wrong clock?"
        return ""


def load(path: Path) -> Identity | None:
    """The stored identity, or None before the first start."""
    if not path.exists():
        return None
    return Identity(**json.loads(path.read_text()))


def save(path: Path, identity: Identity) -> None:
    """Store it, mode 0600, at once or not at all."""
    write_private(path, json.dumps(asdict(identity)))


def new_key() -> str:
    """A P-256 private key, PEM."""
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )


def signing_request(key_pem: str, name: str) -> str:
    """A certificate request for the key, PEM. The server sets subject and names; `name` only helps people."""
    key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    # The same request each time it is asked for, so that whoever signs can tell a repeat.
    request = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return request.public_bytes(serialization.Encoding.PEM).decode()
