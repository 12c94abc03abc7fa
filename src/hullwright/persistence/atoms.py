"""Atoms, flows and logbooks as rows: how TaskFlow's details are written and read back.

TaskFlow's own decoding of a retry's history swaps the values that the retry provided for failure dictionaries (its `from_dict`, 6.5,
reuses a loop variable), so histories are decoded here.
"""

from __future__ import annotations

from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from taskflow import exceptions as taskflow_errors
from taskflow.persistence import models
from taskflow.types import failure

from hullwright.persistence.database import now
from hullwright.persistence.inserts import upsert
from hullwright.persistence.models.jobs import atoms, flows, logbooks

_MAX_TOLD_BYTES = 4096  # results that are larger stay with the atom; its event says only how large


def not_found(kind: str, uuid: str) -> taskflow_errors.NotFound:
    """TaskFlow's own error for a row that is not there."""
    return taskflow_errors.NotFound(f"No {kind} found with uuid {uuid!r}")


# --- Encoding ----------------------------------------------------------------------------------------------------------


def _encode_failure(found: failure.Failure | None) -> dict[str, Any] | None:
    if found is None:
        return None
    data: dict[str, Any] = found.to_dict()
    # Arguments of foreign errors may be anything; their text is enough, and JSON must always hold it.
    data["exc_args"] = [argument if isinstance(argument, str | int | float | bool) else str(argument) for argument in data["exc_args"]]
    data["causes"] = []
    return data


def _row(flow_uuid: str, atom: models.AtomDetail) -> dict[str, Any]:
    results = atom.results
    if isinstance(atom, models.RetryDetail):
        results = [(provided, {name: _encode_failure(found) for name, found in failures.items()}) for provided, failures in atom.results]
    body = {
        "results": _plain(results),
        "failure": _encode_failure(atom.failure),
        "revert_results": _plain(atom.revert_results),
        "revert_failure": _encode_failure(atom.revert_failure),
        "meta": atom.meta,
        "version": atom.version,
    }
    return {
        "uuid": atom.uuid,
        "flow_uuid": flow_uuid,
        "name": atom.name,
        "kind": models.atom_detail_type(atom),
        "state": atom.state,
        "intention": atom.intention,
        "body": body,
    }


def _plain(value: Any) -> Any:
    """A failure that stands as a result is kept as the failure; what a task may provide is checked where it returns."""
    return {"failure": _encode_failure(value)} if isinstance(value, failure.Failure) else value


def told_result(atom: models.AtomDetail) -> Any:
    """What a step's event says of its outcome: what it provided, or {error, message} of what it raised."""
    found = atom.revert_failure or atom.failure
    if atom.state in ("FAILURE", "REVERT_FAILURE") and found is not None:
        return {"error": next(iter(found), "").rpartition(".")[2], "message": found.exception_str}
    if atom.state != "SUCCESS" or isinstance(atom, models.RetryDetail) or atom.results is None:
        return None
    size_bytes = len(orjson.dumps(atom.results))
    return atom.results if size_bytes <= _MAX_TOLD_BYTES else {"size_bytes": size_bytes}


# --- Decoding ----------------------------------------------------------------------------------------------------------


def _decode_failure(data: dict[str, Any] | None) -> failure.Failure | None:
    return None if data is None else failure.Failure.from_dict(data)


def _detail(row: Any) -> models.AtomDetail:
    body = row["body"]
    atom = models.atom_detail_class(row["kind"])(row["name"], row["uuid"])
    atom.state, atom.intention = row["state"], row["intention"]
    atom.version, atom.meta = body["version"], body["meta"] or {}
    if isinstance(atom.version, list):
        atom.version = tuple(atom.version)
    atom.failure, atom.revert_failure = _decode_failure(body["failure"]), _decode_failure(body["revert_failure"])
    atom.revert_results = _from_plain(body["revert_results"])
    if isinstance(atom, models.RetryDetail):
        atom.results = [
            (provided, {name: _decode_failure(found) for name, found in failures.items()}) for provided, failures in body["results"] or []
        ]
    else:
        atom.results = _from_plain(body["results"])
    return atom


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"failure"}:
        return _decode_failure(value["failure"])
    return value


# --- Rows --------------------------------------------------------------------------------------------------------------


def save(connection: Connection, flow_uuid: str, details: list[models.AtomDetail]) -> None:
    """Insert or replace atoms of a flow."""
    if details:
        upsert(connection, atoms, [_row(flow_uuid, atom) for atom in details], keys=("uuid",), replace=("state", "intention", "body"))


def replace(connection: Connection, atom: models.AtomDetail) -> None:
    """Replace one atom.

    Raises: taskflow.exceptions.NotFound.
    """
    row = _row("", atom)
    changes = {name: row[name] for name in ("state", "intention", "body")}
    if connection.execute(sa.update(atoms).where(atoms.c.uuid == atom.uuid).values(**changes)).rowcount == 0:
        raise not_found("atom", atom.uuid)


def load_for_flow(connection: Connection, flow_uuid: str) -> list[models.AtomDetail]:
    """A flow's atoms."""
    return [_detail(row) for row in connection.execute(sa.select(atoms).where(atoms.c.flow_uuid == flow_uuid)).mappings()]


def load_one(connection: Connection, uuid: str) -> models.AtomDetail:
    """One atom.

    Raises: taskflow.exceptions.NotFound.
    """
    row = connection.execute(sa.select(atoms).where(atoms.c.uuid == uuid)).mappings().first()
    if row is None:
        raise not_found("atom", uuid)
    return _detail(row)


def flow_row(detail: models.FlowDetail) -> dict[str, Any]:
    """A flow's row, without a book."""
    return {"uuid": detail.uuid, "name": detail.name, "state": detail.state, "meta": detail.meta}


def save_flow(connection: Connection, detail: models.FlowDetail, *, ignore_missing: bool) -> None:
    """Replace a flow's state and have its atoms.

    Raises: taskflow.exceptions.NotFound, unless `ignore_missing`: then it is inserted.
    """
    changed = connection.execute(sa.update(flows).where(flows.c.uuid == detail.uuid).values(state=detail.state, meta=detail.meta))
    if changed.rowcount == 0:
        if not ignore_missing:
            raise not_found("flow", detail.uuid)
        connection.execute(sa.insert(flows), flow_row(detail))
    save(connection, detail.uuid, list(detail))


def load_flow(connection: Connection, uuid: str, *, with_atoms: bool = True) -> models.FlowDetail | None:
    """A flow, with its atoms unless told otherwise; None when there is none."""
    row = connection.execute(sa.select(flows).where(flows.c.uuid == uuid)).mappings().first()
    if row is None:
        return None
    detail = models.FlowDetail(row["name"], uuid)
    detail.state, detail.meta = row["state"], row["meta"] or {}
    if with_atoms:
        for atom in load_for_flow(connection, uuid):
            detail.add(atom)
    return detail


def save_book(connection: Connection, book: models.LogBook) -> models.LogBook:
    """Insert or replace a book, its flows and their atoms."""
    columns = {"uuid": book.uuid, "name": book.name, "meta": book.meta, "created_at": now(), "updated_at": now()}
    upsert(connection, logbooks, columns, keys=("uuid",), replace=("meta", "updated_at"))
    for detail in book:
        row = {"uuid": detail.uuid, "book_uuid": book.uuid, "name": detail.name, "state": detail.state, "meta": detail.meta}
        upsert(connection, flows, row, keys=("uuid",), replace=("state", "meta"))
        save(connection, detail.uuid, list(detail))
    return book


def load_book(connection: Connection, uuid: str) -> models.LogBook:
    """A book without its flows.

    Raises: taskflow.exceptions.NotFound.
    """
    row = connection.execute(sa.select(logbooks).where(logbooks.c.uuid == uuid)).mappings().first()
    if row is None:
        raise not_found("logbook", uuid)
    book = models.LogBook(row["name"], uuid)
    book.meta = row["meta"] or {}
    return book


def book_uuids(connection: Connection) -> list[str]:
    """All books."""
    return list(connection.execute(sa.select(logbooks.c.uuid)).scalars())


def destroy_book(connection: Connection, uuid: str) -> None:
    """Delete a book, its flows and their atoms.

    Raises: taskflow.exceptions.NotFound.
    """
    ours = sa.select(flows.c.uuid).where(flows.c.book_uuid == uuid)
    connection.execute(sa.delete(atoms).where(atoms.c.flow_uuid.in_(ours)))
    connection.execute(sa.delete(flows).where(flows.c.book_uuid == uuid))
    if connection.execute(sa.delete(logbooks).where(logbooks.c.uuid == uuid)).rowcount == 0:
        raise not_found("logbook", uuid)


def destroy_flow(connection: Connection, uuid: str) -> None:
    """Delete a flow and its atoms; gone is done."""
    connection.execute(sa.delete(atoms).where(atoms.c.flow_uuid == uuid))
    connection.execute(sa.delete(flows).where(flows.c.uuid == uuid))


def clear(connection: Connection) -> None:
    """Delete everything of TaskFlow's."""
    for table in (atoms, flows, logbooks):
        connection.execute(sa.delete(table))
