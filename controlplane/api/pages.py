"""Page sizes and page tokens. A token is sealed: it holds where the next page begins, and only this server can make one.

It is good for one day and for the same call with the same filters, because it means nothing anywhere else.
"""

import base64
import binascii
import hashlib
import json
from datetime import datetime, timedelta
from typing import Any

from controlplane.domain.failure import WapFailure, invalid
from controlplane.store.vault import Vault

MAX_PAGE = 500
TOKEN_LIFE = timedelta(days=1)


class Pages:
    """The pages of one list: `place` names the call, `filters` what it was asked for."""

    def __init__(self, vault: Vault, now: datetime, place: str, *filters: object) -> None:
        digest = hashlib.sha256(json.dumps([str(one) for one in filters]).encode()).hexdigest()
        self._vault, self._now, self._place = vault, now, f"page/{place}/{digest}"

    def begin(self, token: str) -> Any:
        """Where the page begins, as it was given to `token`; None for the first page."""
        if not token:
            return None
        try:
            sealed = base64.urlsafe_b64decode(token.encode())
            until, cursor = json.loads(self._vault.open(sealed, self._place))
        except (binascii.Error, ValueError, WapFailure):
            raise _refused(token, "the next_page_token of the answer before, with the same filters") from None
        if datetime.fromisoformat(until) <= self._now:
            raise _refused(token, "a page token that is less than a day old")
        return cursor

    def token(self, cursor: Any) -> str:
        """The token of the page that begins behind `cursor`, a JSON value."""
        text = json.dumps([(self._now + TOKEN_LIFE).isoformat(), cursor])
        return base64.urlsafe_b64encode(self._vault.seal(text.encode(), self._place)).decode()


def page_size(given: int, default: int, most: int = MAX_PAGE) -> int:
    """The number of rows to answer with; 0 means the default."""
    if given > most:
        raise invalid("page_size", given, f"1 to {most}, or 0 for {default}")
    return given or default


def _refused(token: str, allowed: str) -> WapFailure:
    return invalid("page_token", token, allowed)
