"""Request bodies against schemas: compiled once per window of microversions, errors told in Nova's words, secrets never echoed."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

import falcon
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from hullwright.api.context import microversion
from hullwright.api.json_body import read_json
from hullwright.api.schemas.parts import UUID_PATTERN
from hullwright.objects.errors import BadRequest

# Members whose values are never told back, nor anything that holds them.
_SECRET = frozenset({"user_data", "adminPass", "contents", "private_key", "connection_info"})
_LONGEST_ECHO = 300

_UUID = re.compile(UUID_PATTERN, re.ASCII)


# --- Formats ----------------------------------------------------------------------------------------------------------


def _is_name(value: str) -> bool:
    return value.isprintable() and value == value.strip(" ")


def _is_printable_lines(value: str) -> bool:
    return all(part.isprintable() for part in re.split(r"[\r\n\t]", value))


def is_uuid(value: str) -> bool:
    """Whether a string is a uuid, with dashes or without."""
    return _UUID.fullmatch(value) is not None


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_address(version: int | None) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        return version in (None, address.version) and "%" not in value

    return check


_FORMATS: dict[str, Callable[[str], bool]] = {
    "name": _is_name,
    "printable_lines": _is_printable_lines,
    "uuid": is_uuid,
    "uuid_or_empty": lambda value: value == "" or is_uuid(value),
    "base64": _is_base64,
    "ipv4": _is_address(4),
    "ipv6": _is_address(6),
    "ip": _is_address(None),
}


def _check_format(validator: Any, form: str, instance: Any, schema: Mapping[str, Any]) -> Any:
    """The `format` keyword: our own formats, and int:MIN:MAX for whole numbers that may come as strings."""
    if form.startswith("int:"):
        if isinstance(instance, bool) or not isinstance(instance, (int, str)):
            return
        _, low, high = form.split(":")
        try:
            number = int(instance)
        except ValueError:
            yield ValidationError(f"{instance!r} is not an integer")
            return
        if number < int(low):
            yield ValidationError(f"{instance!r} is less than the minimum of {low}")
        elif number > int(high):
            yield ValidationError(f"{instance!r} is greater than the maximum of {high}")
    elif isinstance(instance, str) and not _FORMATS[form](instance):
        yield ValidationError(f"{instance!r} is not a {form!r}")


Validator: Any = extend(Draft202012Validator, {"format": _check_format})  # type: ignore[no-untyped-call]


# --- Bodies -----------------------------------------------------------------------------------------------------------


class Windows:
    """The schemas of one request by microversion: {since: schema}, each in force until the next begins."""

    def __init__(self, schemas: Mapping[int, Mapping[str, Any]]) -> None:
        """Compile all of them."""
        self._compiled = sorted(((since, Validator(schema)) for since, schema in schemas.items()), reverse=True)
        for since, schema in schemas.items():
            try:
                Validator.check_schema(schema)
            except Exception as error:
                raise RuntimeError(f"schema of 2.{since} is wrong: {error}") from error

    def check(self, body: Any, minor: int) -> None:
        """Compare `body` with the schema in force in 2.`minor`.

        Raises: BadRequest.
        """
        validator = next(compiled for since, compiled in self._compiled if since <= minor)
        error = next(validator.iter_errors(body), None)
        if error is not None:
            raise BadRequest(_tell(error))


def _tell(error: ValidationError) -> str:
    path = [str(part) for part in error.absolute_path]
    if _SECRET.intersection(path):
        keyword = error.validator if error.validator != "format" else f"format {error.validator_value}"
        return f"Invalid input for field/attribute {path[-1]}. Value: (not shown). It violates {keyword}."
    shown = repr(_redacted(error.instance))
    message = error.message.replace(repr(error.instance), _shortened(shown))
    if not path:
        return _shortened(message, 3 * _LONGEST_ECHO)
    value = str(_redacted(error.instance))
    return f"Invalid input for field/attribute {path[-1]}. Value: {_shortened(value)}. {_shortened(message, 3 * _LONGEST_ECHO)}"


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "(not shown)" if key in _SECRET else _redacted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_redacted(inner) for inner in value]
    return value


def _shortened(text: str, longest: int = _LONGEST_ECHO) -> str:
    return text if len(text) <= longest else text[:longest] + "..."


def body(req: falcon.Request, windows: Windows, conf: Any) -> Any:
    """The request's body, checked against the schema of its microversion.

    Raises: HttpError, BadRequest.
    """
    found = read_json(req, conf)
    windows.check(found, microversion(req))
    return found
