"""Error bodies of the Build API, and errors of builds in words that any user may read."""

from __future__ import annotations

import inspect
from typing import Any

from hullwright.objects import errors
from hullwright.objects.errors import HullwrightError


def error_body(status: int, message: str, error: HullwrightError | None) -> dict[str, Any]:
    """The body of an error answer."""
    kind = type(error).__name__ if error is not None else "HttpError"
    return {"error": {"code": status, "type": kind, "message": message, "hint": error.hint if error is not None else ""}}


def explain(class_name: str | None) -> str:
    """What an error of that class means: for those who may not read its message, which names hosts and paths."""
    found = getattr(errors, class_name or "", None)
    if inspect.isclass(found) and issubclass(found, HullwrightError):
        return (inspect.getdoc(found) or "").partition("\n")[0]
    return "Something unexpected went wrong."


def hint(class_name: str | None) -> str:
    """What a person can do about an error of that class."""
    found = getattr(errors, class_name or "", None)
    return found.hint if inspect.isclass(found) and issubclass(found, HullwrightError) else ""
