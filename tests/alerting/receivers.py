"""Those who receive alerts: a small SMTP server and a small HTTP server that write down what they are sent."""

import asyncio
import base64
import contextlib
import datetime
import email
import email.policy
import ipaddress
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

R = TypeVar("R", "MailServer", "Receiver")


@dataclass
class Mail:
    """One mail as it came in."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    user: str
    encrypted: bool

    @property
    def text(self) -> str:
        """Its plain text."""
        part = self.message.get_body(("plain",))
        assert part is not None
        return str(part.get_content())


@dataclass
class MailServer:
    """SMTP on loopback. `refuse`: what is answered to DATA instead of taking it; `silent`: it never says a word."""

    port: int = 0
    refuse: str = ""
    silent: bool = False
    password: str = ""
    tls: ssl.SSLContext | None = None
    mails: list[Mail] = field(default_factory=list)
    connections: int = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, OSError):
            if self.silent:
                await reader.read()
                return
            await self._session(reader, writer)
        writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender, user, encrypted = "", "", False
        recipients: list[str] = []

        def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())

        say("220 mail.test ready")
        while line := (await reader.readline()).decode().strip():
            verb = line.split(" ")[0].upper()
            if verb == "EHLO":
                say("250-mail.test")
                if self.tls is not None and not encrypted:
                    say("250-STARTTLS")
                say("250 AUTH PLAIN")
            elif verb == "STARTTLS" and self.tls is not None:
                say("220 go ahead")
                await writer.start_tls(self.tls)
                encrypted = True
            elif verb == "AUTH":
                _, user, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
                say("235 welcome" if password == self.password else "535 5.7.8 wrong user name or password")
            elif verb == "MAIL":
                sender, recipients = line.partition("<")[2].partition(">")[0], []
                say("250 ok")
            elif verb == "RCPT":
                recipients.append(line.partition("<")[2].partition(">")[0])
                say("250 ok")
            elif verb == "DATA":
                if self.refuse:
                    say(self.refuse)
                    continue
                say("354 go ahead")
                raw = await reader.readuntil(b"\r\n.\r\n")
                message = email.message_from_bytes(raw.removesuffix(b".\r\n"), policy=email.policy.default)
                assert isinstance(message, EmailMessage)
                self.mails.append(Mail(sender, recipients, message, user, encrypted))
                say("250 taken")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


@dataclass
class Request:
    """One HTTP request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """HTTP on loopback. `status`: what it answers; `silent`: it reads and never answers."""

    port: int = 0
    status: str = "200 OK"
    location: str = ""
    silent: bool = False
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.split(": ", 1) for line in head[1:] if line)
            headers = {name.lower(): value for name, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append(Request(head[0].split(" ")[1], headers, body))
            if self.silent:
                await reader.read()
                return
            where = f"location: {self.location}\r\n" if self.location else ""
            writer.write(f"HTTP/1.1 {self.status}\r\n{where}content-length: 0\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def listening(receiver: R, *, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[R]:
    """The receiver, ready; who still waits for it at the end is cut off."""
    talking: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.append(writer)
        await receiver.talk(reader, writer)

    server = await asyncio.start_server(talk, "127.0.0.1", port, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for writer in talking:
            writer.close()


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """A server's TLS for this name; its certificate, which is its own authority, is written to `folder`/ca.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context
