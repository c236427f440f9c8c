"""Who may do what: roles per project, and what a role includes."""

import binascii
import re
import secrets
import string
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from controlplane.domain.failure import invalid

ALPHABET = string.digits + string.ascii_letters
RANDOM_LENGTH, CHECK_LENGTH = 32, 6
TOKEN = re.compile(rf"(?:wap_api|waps)_[0-9A-Za-z]{{{RANDOM_LENGTH}}}_[0-9A-Za-z]{{{CHECK_LENGTH}}}")
USERNAME = re.compile(r"[a-z][a-z0-9._-]{1,39}")
PASSWORD_LENGTH = (12, 128)


class Role(StrEnum):
    """Each includes the ones before it."""

    VIEWER = "VIEWER"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"


RANK = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


@dataclass(frozen=True)
class Grant:
    """A role in one project, or in all where `project_id` is empty."""

    project_id: str
    role: Role


@dataclass(frozen=True)
class Caller:
    """An authenticated person or program."""

    actor: str
    user_id: str
    display_name: str
    grants: tuple[Grant, ...]
    token_id: str
    is_session: bool
    expires_at: datetime

    def may(self, role: Role, project_id: str) -> bool:
        """Whether the caller has at least this role in the project; "" asks for the whole installation."""
        return covers(self.grants, Grant(project_id, role))

    def projects(self) -> frozenset[str] | None:
        """Projects the caller can see; None for all."""
        if any(grant.project_id == "" for grant in self.grants):
            return None
        return frozenset(grant.project_id for grant in self.grants)


def covers(grants: Collection[Grant], wanted: Grant) -> bool:
    """Whether what was granted includes what is wanted."""
    return any(
        grant.project_id in {"", wanted.project_id} and RANK[grant.role] >= RANK[wanted.role] for grant in grants
    )


def cut(grants: Collection[Grant], limit: Collection[Grant]) -> tuple[Grant, ...]:
    """Of these grants, what the limit includes: a token never has more than its maker has now."""
    return tuple(grant for grant in grants if covers(limit, grant))


def new_token(prefix: str) -> str:
    """ "<prefix>_<32 random>_<check>": about 190 bits, and a checksum by which scanners tell it from noise."""
    body = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
    return f"{prefix}_{body}_{_check(f'{prefix}_{body}')}"


def is_token(text: str) -> bool:
    """Whether the text has the form and checksum of a token; a typing error never reaches the database."""
    body, _, check = text.rpartition("_")
    return bool(TOKEN.fullmatch(text)) and _check(body) == check


def _check(text: str) -> str:
    number, digits = binascii.crc32(text.encode()), ""
    for _ in range(CHECK_LENGTH):
        number, index = divmod(number, len(ALPHABET))
        digits += ALPHABET[index]
    return digits


def check_username(name: str) -> str:
    """The name, or a refusal."""
    if not USERNAME.fullmatch(name):
        raise invalid("username", name, "2 to 40 of a-z, 0-9, '.', '_' and '-', beginning with a letter")
    return name


def check_password(password: str, field: str) -> str:
    """The password, or a refusal that does not repeat it."""
    low, high = PASSWORD_LENGTH
    if not low <= len(password) <= high:
        raise invalid(field, f"{len(password)} characters", f"{low} to {high} characters")
    return password


def random_password() -> str:
    """A first password: 120 bits, no characters that are mistaken for each other."""
    return secrets.token_urlsafe(15)
