"""mongod.conf, keyfile and certificates on disk. No moment in which a stranger is let in: the first start has them all."""

import json
from pathlib import Path
from typing import Any

from agent.failure import FailureCode, NodeFailure
from agent.files import PRIVATE_DIRECTORY, write_private
from agent.mongod.settings import MongodSecrets, MongodSettings
from agent.settings import NodePaths

# A mongod that is told to stop serves on for 15 s by default, so that drivers look elsewhere. The agent has stepped it
# down before, and drivers hear of that at once.
SHUTDOWN_QUIESCE_MILLIS = 2000


def write_secrets(paths: NodePaths, secrets: MongodSecrets) -> None:
    """Keyfile, certificate with key, and authority; each mode 0600."""
    write_private(paths.keyfile, secrets.keyfile + "\n")
    write_private(paths.member_pem, secrets.certificate_pem.rstrip() + "\n" + paths.member_key.read_text())
    write_private(paths.cluster_ca, secrets.ca_pem)


def same_secrets(paths: NodePaths, secrets: MongodSecrets) -> bool:
    """Whether the files hold exactly these."""
    expected = {
        paths.keyfile: secrets.keyfile + "\n",
        paths.member_pem: secrets.certificate_pem.rstrip() + "\n" + paths.member_key.read_text(),
        paths.cluster_ca: secrets.ca_pem,
    }
    return all(path.exists() and path.read_text() == content for path, content in expected.items())


def same_keyfile(paths: NodePaths, secrets: MongodSecrets) -> bool:
    """Whether the keyfile holds exactly this; it cannot be changed under a running mongod."""
    return paths.keyfile.exists() and paths.keyfile.read_text() == secrets.keyfile + "\n"


def write_config(paths: NodePaths, settings: MongodSettings) -> None:
    """mongod.conf for these settings, and the directories that mongod does not make itself."""
    paths.logs.mkdir(mode=0o750, parents=True, exist_ok=True)
    data = data_directory(paths, settings)
    try:
        data.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    except OSError as error:
        text = f"the data directory {data} cannot be made: {error.strerror}"
        raise NodeFailure(FailureCode.VOLUME_UNUSABLE, text, field="volume_id", given=settings.volume_id) from None
    # JSON is YAML, and needs no library of its own to be written safely.
    write_private(paths.mongod_config, json.dumps(config(paths, settings), indent=2) + "\n")


def data_directory(paths: NodePaths, settings: MongodSettings) -> Path:
    """storage.dbPath."""
    return paths.volume(settings.volume_id) / "db"


def config(paths: NodePaths, settings: MongodSettings, *, localhost_exception: bool = False) -> dict[str, Any]:
    """The configuration as mongod reads it. `localhost_exception` exists for the test that shows why it is off."""
    return {
        "net": _net(paths, settings),
        "security": {"keyFile": str(paths.keyfile), "authorization": "enabled", "clusterAuthMode": "keyFile"},
        "replication": {
            "replSetName": settings.replica_set,
            **({"oplogSizeMB": settings.oplog_mib} if settings.oplog_mib else {}),
        },
        **({"sharding": {"clusterRole": "configsvr"}} if settings.role == "config" else {}),
        "storage": {
            "dbPath": str(data_directory(paths, settings)),
            **({"wiredTiger": {"engineConfig": {"cacheSizeGB": settings.cache_gib}}} if settings.cache_gib else {}),
        },
        "systemLog": {"destination": "file", "path": str(paths.mongod_log), "logAppend": True},
        "processManagement": {"fork": False},
        "setParameter": {
            "enableLocalhostAuthBypass": localhost_exception,
            "shutdownTimeoutMillisForSignaledShutdown": SHUTDOWN_QUIESCE_MILLIS,
        },
    }


def _net(paths: NodePaths, settings: MongodSettings) -> dict[str, Any]:
    return {
        "bindIp": settings.bind_ip,
        "ipv6": ":" in settings.bind_ip,
        "port": settings.port,
        # The socket file would lie in /tmp, shared by every mongod with the same port.
        "unixDomainSocket": {"enabled": False},
        "tls": {
            "mode": "requireTLS",
            "certificateKeyFile": str(paths.member_pem),
            "CAFile": str(paths.cluster_ca),
            "allowConnectionsWithoutCertificates": True,
        },
    }
