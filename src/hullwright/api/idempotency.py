"""Idempotency-Key: a client that does not know whether its create request arrived sends it again, with the same key.

The key is the client's, within its project. A request with a key that was used is compared by its fingerprint: the same is answered as the
first time, another is refused. Only what was made is remembered; a request that was refused may be mended and sent with the same key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import falcon
import orjson

from hullwright.api.context import Caller
from hullwright.objects.errors import BadRequest, Conflict
from hullwright.persistence import idempotency_keys
from hullwright.persistence.database import Database
from hullwright.persistence.idempotency_keys import KeyedRequest, Made

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"  # on an answer that tells of what an earlier request made
MAX_LENGTH = 255


def read(req: falcon.Request, body: Mapping[str, Any], who: Caller, conf: Any) -> KeyedRequest | None:
    """The request as one that may come again; None without a key.

    Raises: BadRequest.
    """
    key = req.get_header(HEADER)
    if key is None:
        return None
    if not (1 <= len(key) <= MAX_LENGTH and key.isascii() and key.isprintable()):
        raise BadRequest(f"{HEADER} must have 1 to {MAX_LENGTH} printable ASCII characters.")
    return KeyedRequest(who.project_id, key, _fingerprint(req.path, body), conf.api.idempotency_key_hours * 3600.0)


def made_before(db: Database, asked: KeyedRequest | None) -> Made | None:
    """What the same request made before; None without a key.

    Raises: Conflict when the key was used for another request.
    """
    if asked is None:
        return None
    with db.read() as conn:
        made = idempotency_keys.find(conn, asked)
    if made is not None and made.fingerprint != asked.fingerprint:
        raise Conflict(reason=f"This {HEADER} was used before, for another request. Choose a new key for a new request.")
    return made


def _fingerprint(path: str, body: Mapping[str, Any]) -> str:
    """A digest of what is asked. The password is left out: a hash kept beside the rest of the request would let it be guessed."""
    server = {name: value for name, value in body["server"].items() if name != "adminPass"}
    asked = {"path": path, "body": {**body, "server": server}}
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()
