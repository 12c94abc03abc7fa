"""/os-keypairs: public keys that servers are made with. A private key that is generated is answered once and kept nowhere."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import falcon

from hullwright.api.context import caller, microversion
from hullwright.api.links import Links
from hullwright.api.queries import cut, last, page_limit
from hullwright.api.resource import Resource, send
from hullwright.api.schemas import key_pairs as schemas
from hullwright.api.times import iso_micro
from hullwright.objects.errors import BadRequest, Forbidden, KeypairNotFound
from hullwright.persistence import key_pairs
from hullwright.persistence.key_pairs import KeyPair

MAX_KEY_PAIRS = 100
_RSA_BITS = 2048


def fingerprint(public_key: str) -> str:
    """The MD5 fingerprint of an OpenSSH public key, as `ssh-keygen -E md5 -l` tells it, without its prefix.

    Raises: BadRequest when it is no such key.
    """
    # Imported where it is needed: it is big, and most processes never see a key.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        load_ssh_public_key(public_key.encode())
        blob = base64.b64decode(public_key.split(None, 2)[1])
    except (ValueError, UnsupportedAlgorithm):
        raise BadRequest("Keypair data is invalid: failed to generate fingerprint") from None
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def generate() -> tuple[str, str]:
    """A new pair: (private key in PEM, public key in OpenSSH's form)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} Generated-by-Hullwright"


class KeyPairs(Resource):
    """A user's key pairs."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All of them, by name; in pages from 2.35 on."""
        minor = microversion(req)
        self.require(req, "os-keypairs")
        user_id = self.owner(req)
        paged = minor >= 35
        limit = page_limit(req, self.context.conf.api.max_limit) if paged else None
        marker = last(req, "marker") if paged else None
        with self.context.db.read() as conn:
            try:
                found = key_pairs.list_for(conn, user_id, marker=marker, limit=None if limit is None else limit + 1)
            except KeypairNotFound:
                raise BadRequest(f"marker [{marker}] not found") from None
        page, more = cut(found, limit or len(found))
        answer: dict[str, Any] = {"keypairs": [{"keypair": _brief(pair, minor)} for pair in page]}
        if more:
            answer["keypairs_links"] = Links(req, self.context.conf).next(req, page[-1].name)
        send(resp, answer)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Import a public key; without one, before 2.92, make a pair and answer its private key."""
        minor = microversion(req)
        given = self.body(req, schemas.CREATE)["keypair"]
        self.require(req, "os-keypairs")
        user_id = self.owner(req, given.get("user_id"))
        if given.get("type", "ssh") != "ssh":
            raise BadRequest("Only key pairs of type ssh are supported.")
        private = None
        if "public_key" in given:
            public = given["public_key"]
        else:
            private, public = generate()
        print_of_key = fingerprint(public)
        with self.context.db.write() as conn:
            if key_pairs.count(conn, user_id) >= MAX_KEY_PAIRS:
                raise Forbidden(reason="Quota exceeded, too many key pairs.")
            key_pairs.create(conn, user_id=user_id, name=given["name"], type="ssh", fingerprint=print_of_key, public_key=public)
        shown = {"name": given["name"], "public_key": public, "fingerprint": print_of_key, "user_id": user_id}
        if private is not None:
            shown["private_key"] = private
        if minor >= 2:
            shown["type"] = "ssh"
        send(resp, {"keypair": shown}, 201 if minor >= 2 else 200)

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """One of them."""
        self.require(req, "os-keypairs")
        with self.context.db.read() as conn:
            pair = key_pairs.get(conn, self.owner(req), name)
        shown = {
            **_brief(pair, microversion(req)),
            "user_id": pair.user_id,
            "id": pair.id,
            "created_at": iso_micro(pair.created_at),
            "deleted": False,
            "deleted_at": None,
            "updated_at": None,
        }
        send(resp, {"keypair": shown})

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Forget one; servers keep the key that they were made with."""
        self.require(req, "os-keypairs")
        with self.context.db.write() as conn:
            key_pairs.delete(conn, self.owner(req), name)
        resp.status = 204 if microversion(req) >= 2 else 202

    def owner(self, req: falcon.Request, given: str | None = None) -> str:
        """Whose key pairs are meant: the caller's, or, for administrators from 2.10 on, those of the user that is named."""
        who = caller(req)
        named = given or (last(req, "user_id") if microversion(req) >= 10 else None)
        if named is None or named == who.user_id:
            return who.user_id
        self.require(req, "os-keypairs:other_users")
        return named


def _brief(pair: KeyPair, minor: int) -> dict[str, Any]:
    shown = {"name": pair.name, "public_key": pair.public_key, "fingerprint": pair.fingerprint}
    if minor >= 2:
        shown["type"] = pair.type
    return shown
