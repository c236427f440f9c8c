"""Client tokens, which moto ignores: the same request twice is one resource, the same token for another is refused."""

import hashlib
import json
from dataclasses import dataclass, field

from scripts.sandbox.refusal import Refusal

ACTIONS = ("RunInstances", "CreateVolume")
MAX_LENGTH = 64
Reply = tuple[list[tuple[str, str]], bytes]


@dataclass
class Tokens:
    """Requests by (action, token): digest of the parameters and the reply."""

    known: dict[tuple[str, str], tuple[str, Reply]] = field(default_factory=dict)

    def recall(self, action: str, parameters: dict[str, str]) -> Reply | None:
        """The earlier reply to this very request, or None. Refusal as EC2 would."""
        token = parameters.get("ClientToken", "")
        if action not in ACTIONS or not token:
            return None
        if len(token) > MAX_LENGTH or not token.isascii():
            raise Refusal("InvalidParameterValue", f"ClientToken must be at most {MAX_LENGTH} ASCII characters")
        found = self.known.get((action, token))
        if found is None:
            return None
        digest, reply = found
        if digest != _digest(parameters):
            raise Refusal("IdempotentParameterMismatch", "the client token was used with other parameters")
        return reply

    def remember(self, action: str, parameters: dict[str, str], reply: Reply) -> None:
        """Keep the reply."""
        token = parameters.get("ClientToken", "")
        if action in ACTIONS and token:
            self.known[action, token] = (_digest(parameters), reply)


def _digest(parameters: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
