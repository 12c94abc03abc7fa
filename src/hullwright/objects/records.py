"""Helper for frozen records that are stored as JSON: dataclasses to plain dictionaries and back.

Not for: database rows; `persistence/` maps those.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Self

Decoder = Callable[[Any], Any]
_decoders_of: dict[type, dict[str, Decoder | None]] = {}


def _decoders(cls: type) -> dict[str, Decoder | None]:
    """Field -> what rebuilds its value; None where JSON's own value will do. Made once: types are slow to look at."""
    if cls not in _decoders_of:
        hints = typing.get_type_hints(cls)
        _decoders_of[cls] = {field.name: _decoder(hints[field.name]) for field in dataclasses.fields(cls)}
    return _decoders_of[cls]


def _decoder(hint: Any) -> Decoder | None:
    """What rebuilds nested records, tuples and enums that JSON flattened to dictionaries, lists and strings."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return _decoder(options[0]) if len(options) == 1 else None
    if origin is tuple:
        return _tuple_decoder(_decoder(typing.get_args(hint)[0]))
    if isinstance(hint, type) and issubclass(hint, Record):
        record = hint
        return lambda value: record.from_dict(value) if isinstance(value, Mapping) else value
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return hint
    return None


def _tuple_decoder(item: Decoder | None) -> Decoder:
    if item is None:
        return tuple
    decode = item
    return lambda values: tuple(None if value is None else decode(value) for value in values)


class Record:
    """Mix-in for frozen dataclasses whose fields JSON can hold."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and scalars."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`'s answer; unknown keys are left out, so that older code reads newer rows."""
        values = {}
        for name, decode in _decoders(cls).items():
            if name in data:
                value = data[name]
                values[name] = value if decode is None or value is None else decode(value)
        return cls(**values)
