"""The TaskFlow store: TaskFlow's persistence interface on our database, written through at once.

This is plain TaskFlow use, for any engine or conductor. The flows of our own jobs are run through `session.py`, which gathers their saves
and writes the build's history with them.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from taskflow.persistence import base, models

from hullwright.persistence import atoms
from hullwright.persistence.database import Database
from hullwright.persistence.models.jobs import flows


class FlowStore(base.Backend):  # type: ignore[misc]
    """TaskFlow's `Backend` on a `Database`."""

    def __init__(self, db: Database) -> None:
        super().__init__({})
        self.db = db
        self._connection = StoreConnection(self)

    def get_connection(self) -> StoreConnection:
        """The one connection object: it holds nothing."""
        return self._connection

    def close(self) -> None:
        """Nothing is held; the database is its owner's to close."""


class StoreConnection(base.Connection):  # type: ignore[misc]
    """TaskFlow's `Connection`: what is saved is committed when the call returns."""

    def __init__(self, store: FlowStore) -> None:
        self._store = store

    @property
    def backend(self) -> FlowStore:
        """The store."""
        return self._store

    def close(self) -> None:
        """Nothing is held."""

    def validate(self) -> None:
        """The schema's revision is checked when a service starts."""

    def upgrade(self) -> None:
        """Migrations are the schema's; see `schema.upgrade`."""

    def clear_all(self) -> None:
        """Delete every logbook, flow and atom."""
        with self._store.db.write() as connection:
            atoms.clear(connection)

    def update_atom_details(self, atom_detail: models.AtomDetail) -> models.AtomDetail:
        """Save an atom."""
        with self._store.db.write() as connection:
            atoms.replace(connection, atom_detail)
        return atom_detail

    def update_flow_details(self, flow_detail: models.FlowDetail, ignore_missing: bool = False) -> models.FlowDetail:
        """Save a flow and atoms it gained."""
        with self._store.db.write() as connection:
            atoms.save_flow(connection, flow_detail, ignore_missing=ignore_missing)
        return flow_detail

    def save_logbook(self, book: models.LogBook) -> models.LogBook:
        """Save a book with its flows and their atoms."""
        with self._store.db.write() as connection:
            return atoms.save_book(connection, book)

    def destroy_logbook(self, book_uuid: str) -> None:
        """Delete a book with its flows and their atoms."""
        with self._store.db.write() as connection:
            atoms.destroy_book(connection, book_uuid)

    def get_logbooks(self, lazy: bool = False) -> Iterator[models.LogBook]:
        """All books."""
        with self._store.db.read() as connection:
            uuids = atoms.book_uuids(connection)
        return iter([self.get_logbook(uuid, lazy=lazy) for uuid in uuids])

    def get_logbook(self, book_uuid: str, lazy: bool = False) -> models.LogBook:
        """One book; `lazy` leaves its flows out."""
        with self._store.db.read() as connection:
            book = atoms.load_book(connection, book_uuid)
        if not lazy:
            for detail in self.get_flows_for_book(book_uuid):
                book.add(detail)
        return book

    def get_flows_for_book(self, book_uuid: str, lazy: bool = False) -> Iterator[models.FlowDetail]:
        """A book's flows; `lazy` leaves their atoms out."""
        with self._store.db.read() as connection:
            uuids = list(connection.execute(sa.select(flows.c.uuid).where(flows.c.book_uuid == book_uuid)).scalars())
        return iter([self.get_flow_details(uuid, lazy=lazy) for uuid in uuids])

    def get_flow_details(self, fd_uuid: str, lazy: bool = False) -> models.FlowDetail:
        """One flow; `lazy` leaves its atoms out."""
        with self._store.db.read() as connection:
            detail = atoms.load_flow(connection, fd_uuid, with_atoms=not lazy)
        if detail is None:
            raise atoms.not_found("flow", fd_uuid)
        return detail

    def get_atom_details(self, ad_uuid: str) -> models.AtomDetail:
        """One atom."""
        with self._store.db.read() as connection:
            return atoms.load_one(connection, ad_uuid)

    def get_atoms_for_flow(self, fd_uuid: str) -> Iterator[models.AtomDetail]:
        """A flow's atoms."""
        with self._store.db.read() as connection:
            return iter(atoms.load_for_flow(connection, fd_uuid))
