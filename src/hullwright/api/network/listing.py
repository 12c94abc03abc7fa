"""Lists of the Network API: filters, chosen fields, order, pages with a link to the next; the same for every collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import falcon
import sqlalchemy as sa

from hullwright.api.context import ApiContext, base_url
from hullwright.api.errors import HttpError
from hullwright.api.queries import PageRequest, chosen, equal_filters, every, next_query, page_of

R = TypeVar("R")

_PAGING = {"limit", "marker", "page_reverse", "sort_key", "sort_dir", "sort", "fields"}


class Listing:
    """How one collection is listed."""

    def __init__(self, collection: str, columns: Mapping[str, sa.Column[Any]], special: Sequence[str] = ()) -> None:
        """`columns`: filters that are columns; `special`: filters that the caller turns into conditions itself."""
        self._collection = collection
        self._columns = columns
        self._special = set(special)
        self._sortable = {name: column.name for name, column in columns.items()}

    def answer(
        self,
        req: falcon.Request,
        context: ApiContext,
        read: Callable[[list[sa.ColumnElement[bool]], PageRequest, int | None], list[R]],
        view: Callable[[R], dict[str, Any]],
    ) -> dict[str, Any]:
        """The body of the answer. `read` is given conditions, the page and how many rows at most.

        Raises: HttpError 400.
        """
        page = page_of(req, context.conf.api.max_limit, self._sortable, default=("created_at", False))
        where = equal_filters(req, self._columns)
        # What is shown and is no column is compared as shown, so the list is cut only afterwards.
        shown = {name for name in req.params if name not in self._columns and name not in _PAGING | self._special}
        try:
            views = [view(record) for record in read(where, page, None if shown else page.limit + 1)]
        except LookupError:
            raise HttpError(400, f"The marker {page.marker} could not be found.") from None
        for name in shown:
            views = [each for each in views if self._matches(each, name, every(req, name))]
        fields = {part for value in every(req, "fields") for part in value.split(",") if part}
        body: dict[str, Any] = {self._collection: [chosen(fields, each) for each in views[: page.limit]]}
        if len(views) > page.limit > 0:
            href = f"{base_url(req, context.conf)}{req.path}?{next_query(req, views[page.limit - 1]['id'])}"
            body[f"{self._collection}_links"] = [{"rel": "next", "href": href}]
        return body

    @staticmethod
    def _matches(view: Mapping[str, Any], name: str, wanted: Sequence[str]) -> bool:
        if name not in view:
            raise HttpError(400, f"[{name!r}] is invalid attribute for filter")
        have = view[name]
        if isinstance(have, list):
            return any(str(item) in wanted for item in have)
        text = "" if have is None else str(have)
        return text.lower() in [each.lower() for each in wanted]


def show(req: falcon.Request, key: str, view: Mapping[str, Any]) -> dict[str, Any]:
    """The body of an answer with one item, only the chosen fields of it."""
    fields = {part for value in every(req, "fields") for part in value.split(",") if part}
    return {key: chosen(fields, view)}
