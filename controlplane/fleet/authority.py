"""The installation's own authority for agents and listeners, and one authority per cluster for MongoDB's TLS.

Both live sealed in the vault, so that every control plane on the database signs with the same key.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy.orm import Session

from controlplane.domain.clock import Clock
from controlplane.fleet.certificates import (
    Authority509,
    Leaf,
    check_request,
    host_name,
    issue,
    key_to_pem,
    new_authority,
)
from controlplane.store.database import Database
from controlplane.store.vault import Vault

SCOPE = "installation"
LISTENER_LIFE = timedelta(days=90)
MEMBER_LIFE = timedelta(days=365)
# The identity of an agent, as its certificate's URI name.
URI = "spiffe://wap/{install_id}/node/{node_id}"


@dataclass(frozen=True)
class ClusterAuthority:
    """Signs the certificates of one cluster's members."""

    pair: Authority509
    cluster_id: str
    now: datetime

    @property
    def ca_pem(self) -> str:
        """What members and clients trust."""
        return self.pair.certificate_pem.decode()

    def issue_member(self, csr_pem: str, ip: str, names: list[str]) -> str:
        """A certificate for one member, as server and as client: members dial each other. PEM.

        Organization and unit are the cluster's, so that a member of another cluster is never taken for one of this.
        """
        leaf = issue(
            self.pair,
            check_request(csr_pem),
            names=[host_name(ip), *(x509.DNSName(name) for name in names)],
            subject=[
                (NameOID.ORGANIZATION_NAME, "WAP"),
                (NameOID.ORGANIZATIONAL_UNIT_NAME, self.cluster_id),
                (NameOID.COMMON_NAME, ip),
            ],
            server=True,
            client=True,
            now=self.now,
            life=MEMBER_LIFE,
        )
        return leaf.pem


@dataclass(frozen=True)
class Authority:
    """The installation's authority."""

    pair: Authority509
    install_id: str
    agent_life: timedelta
    vault: Vault
    clock: Clock

    @classmethod
    async def load(
        cls, database: Database, vault: Vault, clock: Clock, install_id: str, agent_hours: float
    ) -> "Authority":
        """The authority of this database, made at its first start."""
        pair = await database.ensure(lambda tx: _pair(tx, vault, SCOPE, f"WAP {install_id}", clock.now()))
        return cls(pair, install_id, timedelta(hours=agent_hours), vault, clock)

    @property
    def ca_pem(self) -> str:
        """What agents and clients pin."""
        return self.pair.certificate_pem.decode()

    def issue_agent(self, node_id: str, csr_pem: str) -> Leaf:
        """A client certificate whose only name is the node's."""
        return issue(
            self.pair,
            check_request(csr_pem),
            names=[x509.UniformResourceIdentifier(URI.format(install_id=self.install_id, node_id=node_id))],
            subject=[(NameOID.COMMON_NAME, node_id)],
            server=False,
            client=True,
            now=self.clock.now(),
            life=self.agent_life,
        )

    def issue_listener(self, hosts: list[str], life: timedelta = LISTENER_LIFE) -> tuple[bytes, bytes]:
        """(key, certificate chain) as PEM for our own ports, with the hosts by which clients dial them."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = issue(
            self.pair,
            key.public_key(),
            names=[host_name(host) for host in dict.fromkeys(hosts)],
            subject=[(NameOID.COMMON_NAME, "wap control plane")],
            server=True,
            client=False,
            now=self.clock.now(),
            life=life,
        )
        return key_to_pem(key), leaf.pem.encode()

    def node_of(self, uri: str) -> str | None:
        """The node id in a certificate's URI name, if it is one of this installation."""
        prefix = URI.format(install_id=self.install_id, node_id="")
        return uri.removeprefix(prefix) if uri.startswith(prefix) else None

    def cluster_authority(self, tx: Session, cluster_id: str) -> ClusterAuthority:
        """The cluster's authority, made at its first use."""
        now = self.clock.now()
        pair = _pair(tx, self.vault, f"cluster/{cluster_id}", f"WAP cluster {cluster_id}", now)
        return ClusterAuthority(pair, cluster_id, now)


def _pair(tx: Session, vault: Vault, scope: str, name: str, now: datetime) -> Authority509:
    pair = _stored(tx, vault, scope)
    if pair is None:
        made = new_authority(name, now)
        vault.put(tx, scope, "authority-key", made.key_pem, now)
        vault.put(tx, scope, "authority-certificate", made.certificate_pem, now)
        # Not `made`: another control plane may have been faster, and the first one counts.
        pair = _stored(tx, vault, scope)
    assert pair is not None
    return pair


def _stored(tx: Session, vault: Vault, scope: str) -> Authority509 | None:
    key, certificate = vault.get(tx, scope, "authority-key"), vault.get(tx, scope, "authority-certificate")
    return Authority509(certificate, key) if key is not None and certificate is not None else None
