"""Times as clients read and write them: ISO 8601, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from hullwright.api.queries import bad_parameter


def iso(at: float | None) -> str | None:
    """2026-01-31T12:00:00Z"""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_micro(at: float | None) -> str | None:
    """2026-01-31T12:00:00.000000: without a zone, as the older fields have it."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def iso_micro_utc(at: float | None) -> str | None:
    """2026-01-31T12:00:00.000000Z: with the zone, as the Build API has it."""
    return None if at is None else f"{iso_micro(at)}Z"


def moment(text: str, name: str) -> float:
    """Seconds since the epoch of an ISO 8601 time in the query parameter `name`; without a zone it is UTC.

    Raises: BadRequest.
    """
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that a client did not quote arrives as a space
    except ValueError:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise bad_parameter(name, text, "It is not a time.") from None
    try:
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        raise bad_parameter(name, text, "It is out of range.") from None
