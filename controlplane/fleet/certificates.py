"""Issuing X.509 certificates: P-256 keys, requests checked, names set by us and never taken from a request."""

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.domain.failure import invalid

# Clocks of nodes may be a little behind ours.
BACKDATE = timedelta(minutes=5)
AUTHORITY_LIFE = timedelta(days=3650)
MAX_CSR = 64 * 1024


@dataclass(frozen=True)
class Authority509:
    """A certificate authority: its certificate and private key as PEM."""

    certificate_pem: bytes
    key_pem: bytes


def new_authority(common_name: str, now: datetime) -> Authority509:
    """A self-signed authority that may sign leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority509(_pem(certificate), key_to_pem(key))


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Unencrypted PKCS#8, for a vault or a 0600 file."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def check_request(csr_pem: str, field: str = "csr_pem") -> ec.EllipticCurvePublicKey:
    """The public key of a certificate request; refuses any but a well signed P-256 one."""
    if len(csr_pem) > MAX_CSR:
        raise invalid(field, f"{len(csr_pem)} bytes", f"at most {MAX_CSR} bytes")
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        raise invalid(field, csr_pem[:30], "a PEM certificate request") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise invalid(field, _kind(key), "a P-256 key")
    if not signed:
        raise invalid(field, "a bad signature", "a request signed with its own key")
    _refuse_authority(request, field)
    return key


def _kind(key: object) -> str:
    match key:
        case rsa.RSAPublicKey():
            return f"RSA, {key.key_size} bits"
        case ec.EllipticCurvePublicKey():
            return key.curve.name
        case _:
            return type(key).__name__


def _refuse_authority(request: x509.CertificateSigningRequest, field: str) -> None:
    try:
        constraints = request.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return  # what we cannot read does not get into the certificate either
    if constraints.value.ca:
        raise invalid(field, "CA:true", "a request for a leaf certificate")


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of the public key, hex."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


@dataclass(frozen=True)
class Leaf:
    """A signed certificate: PEM, lower-case hex serial, end of life."""

    pem: str
    serial: str
    expires: datetime


def issue(
    authority: Authority509,
    public_key: ec.EllipticCurvePublicKey,
    *,
    names: Sequence[x509.GeneralName],
    subject: Sequence[tuple[x509.ObjectIdentifier, str]],
    server: bool,
    client: bool,
    now: datetime,
    life: timedelta,
) -> Leaf:
    """A leaf certificate with exactly these names and uses."""
    issuer = x509.load_pem_x509_certificate(authority.certificate_pem)
    key = serialization.load_pem_private_key(authority.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    uses = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in subject]))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    serial = f"{certificate.serial_number:x}"
    return Leaf(_pem(certificate).decode(), serial, certificate.not_valid_after_utc)


def host_name(host: str) -> x509.GeneralName:
    """The right kind of alternative name for an address or a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
