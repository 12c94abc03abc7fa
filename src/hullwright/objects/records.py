"""Helper for frozen records that are stored as JSON: dataclasses to plain dictionaries and back.

Not for: database rows; `persistence/` maps those.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Self


_hints_of: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _hints_of:
        _hints_of[cls] = typing.get_type_hints(cls)
    return _hints_of[cls]


def _decode(hint: Any, value: Any) -> Any:
    """Rebuild nested records and tuples that JSON flattened to dictionaries and lists."""
    if value is None:
        return None
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return _decode(options[0], value) if len(options) == 1 else value
    if origin is tuple:
        item = typing.get_args(hint)[0]
        return tuple(_decode(item, v) for v in value)
    if isinstance(hint, type) and issubclass(hint, Record) and isinstance(value, Mapping):
        return hint.from_dict(value)
    if isinstance(hint, type) and hint.__mro__[-2].__name__ == "StrEnum":
        return hint(value)
    return value


class Record:
    """Mix-in for frozen dataclasses whose fields JSON can hold."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and scalars."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`'s answer; unknown keys are left out, so that older code reads newer rows."""
        hints = _hints(cls)
        return cls(**{f.name: _decode(hints[f.name], data[f.name]) for f in dataclasses.fields(cls) if f.name in data})  # type: ignore[arg-type]
