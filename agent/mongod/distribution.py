"""A MongoDB distribution: a directory with bin/mongod, there already or fetched and checked."""

import asyncio
import hashlib
import http.client
import os
import re
import secrets
import shutil
import ssl
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from agent.failure import FailureCode, NodeFailure
from agent.files import make_private_directory, sync_directory
from agent.mongod.settings import MongodSettings

CHUNK_BYTES = 1024 * 1024
MAX_ARCHIVE_BYTES = 4 * 1024**3
READ_SECONDS = 60.0
VERSION_SECONDS = 20.0
DB_VERSION = re.compile(r"db version v(\S+)")
Progress = Callable[[str], None]


async def ensure_distribution(
    settings: MongodSettings, fetched: Path, progress: Progress, trust: ssl.SSLContext | None = None
) -> Path:
    """Path of a mongod of the wanted version. `fetched` holds downloads by version; `trust` is for the https server.

    Raises DISTRIBUTION_INVALID.
    """
    directory = Path(settings.directory)
    if not settings.directory:
        directory = fetched / settings.version
        if not (directory / "bin/mongod").exists():
            progress(f"MongoDB {settings.version} to be fetched")
            await asyncio.to_thread(_fetch, settings.url, settings.sha256, directory, trust)
    binary = directory / "bin/mongod"
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise _invalid(f"{binary} is not an executable file", given=str(directory))
    await _check_version(binary, settings.version)
    return binary


def find_binary(settings: MongodSettings, fetched: Path) -> Path:
    """The mongod that `ensure_distribution` found, without looking again."""
    return (Path(settings.directory) if settings.directory else fetched / settings.version) / "bin/mongod"


async def _check_version(binary: Path, wanted: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            binary, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        output, _ = await asyncio.wait_for(process.communicate(), VERSION_SECONDS)
    except (OSError, TimeoutError):
        raise _invalid(f"{binary} does not run on this machine", given=wanted) from None
    found = DB_VERSION.search(output.decode(errors="replace"))
    if found is None or found.group(1) != wanted:
        is_version = found.group(1) if found else "unknown"
        raise _invalid(f"the distribution is of version {is_version}", given=is_version, allowed=wanted)


def _fetch(url: str, sha256: str, directory: Path, trust: ssl.SSLContext | None) -> None:
    """Download, check and unpack beside `directory`, then rename: it is there completely or not at all."""
    make_private_directory(directory.parent)
    work = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    make_private_directory(work)
    try:
        archive = work / "archive.tgz"
        _download(url, sha256, archive, trust)
        unpacked = work / "unpacked"
        _unpack(archive, unpacked)
        found = next((path.parent.parent for path in sorted(unpacked.rglob("bin/mongod")) if path.is_file()), None)
        if found is None:
            raise _invalid("the archive has no bin/mongod", given=url)
        if directory.exists():
            shutil.rmtree(directory)
        found.rename(directory)
        sync_directory(directory.parent)
    except (tarfile.TarError, EOFError):
        raise _invalid("the archive is not a .tgz that can be unpacked safely", given=url) from None
    except OSError as error:
        raise _invalid(f"the archive could not be unpacked: {error.strerror}", given=url, retryable=True) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _unpack(archive: Path, target: Path) -> None:
    """Plain files and directories below `target`, nothing else. tarfile's own filters are not in every Python 3.11."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
                raise tarfile.ExtractError(f"unsafe entry {member.name[:80]}")
            path = target / name
            (path if member.isdir() else path.parent).mkdir(mode=0o755, parents=True, exist_ok=True)
            content = tar.extractfile(member)
            if content is not None:
                with path.open("xb") as file:
                    shutil.copyfileobj(content, file, CHUNK_BYTES)
                path.chmod(0o755 if member.mode & 0o111 else 0o644)


def _download(url: str, sha256: str, target: Path, trust: ssl.SSLContext | None) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with _opener(trust).open(url, timeout=READ_SECONDS) as reply, target.open("wb") as file:
            while chunk := reply.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                if size > MAX_ARCHIVE_BYTES:
                    raise _invalid("the archive is too large", given=url, allowed=f"{MAX_ARCHIVE_BYTES} bytes")
                file.write(chunk)
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, str) else type(error.reason).__name__
        raise _invalid(f"the archive could not be fetched: {reason}", given=url, retryable=True) from None
    except (http.client.HTTPException, TimeoutError, ConnectionError):
        raise _invalid("the archive could not be fetched completely", given=url, retryable=True) from None
    if digest.hexdigest() != sha256:
        raise _invalid("the archive's SHA-256 is another", given=digest.hexdigest(), allowed=sha256)


def _opener(trust: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    """https and nothing else: a redirect to http, ftp or a file finds no handler."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(context=trust or ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _invalid(message: str, *, given: str, allowed: str = "", retryable: bool = False) -> NodeFailure:
    return NodeFailure(
        FailureCode.DISTRIBUTION_INVALID,
        message,
        field="distribution",
        given=given,
        allowed=allowed,
        retryable=retryable,
    )
