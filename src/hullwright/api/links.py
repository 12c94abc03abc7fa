"""Links and addresses in answers, as clients read them."""

from __future__ import annotations

import ipaddress
from typing import Any

import falcon

from hullwright.api.context import base_url
from hullwright.api.queries import next_query


class Links:
    """Absolute links for one request."""

    __slots__ = ("base", "versioned")

    def __init__(self, req: falcon.Request, conf: Any) -> None:
        """Links begin with the configured public URL, else with what the client used."""
        self.base = base_url(req, conf)
        self.versioned = self.base + "/v2.1"

    def of(self, collection: str, id: str) -> list[dict[str, str]]:
        """The usual pair: self with the version, bookmark without."""
        return [
            {"rel": "self", "href": f"{self.versioned}/{collection}/{id}"},
            {"rel": "bookmark", "href": f"{self.base}/{collection}/{id}"},
        ]

    def bookmark(self, collection: str, id: str) -> list[dict[str, str]]:
        """The link without the version only."""
        return [{"rel": "bookmark", "href": f"{self.base}/{collection}/{id}"}]

    def next(self, req: falcon.Request, marker: str) -> list[dict[str, str]]:
        """Where the next page is: this request again with another marker."""
        return [{"rel": "next", "href": f"{self.base}{req.path}?{next_query(req, marker)}"}]


def plain_address(text: str | None) -> str | None:
    """An IP address in its shortest form: the same text for the same address, and short enough for its column."""
    return None if text is None else str(ipaddress.ip_address(text))
