"""Error bodies of the Image API: {"message", "code", "title"}, the JSON form of Glance's answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from hullwright.objects.errors import HullwrightError


def error_body(status: int, message: str, error: HullwrightError | None) -> dict[str, Any]:
    """The body."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    return {"message": message, "code": f"{status} {title}", "title": title}
