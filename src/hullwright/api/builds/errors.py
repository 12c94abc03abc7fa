"""Error bodies of the Build API, and what can be done about errors of builds."""

from __future__ import annotations

from typing import Any

from hullwright.api.errors import HttpError
from hullwright.objects import errors
from hullwright.objects.errors import HullwrightError

# What an error is called, and what can be done about it, where its class says neither.
_BY_STATUS = {
    400: ("BadRequest", "Mend what the message names and ask again; the same request will be refused again."),
    401: ("Unauthorized", "Send a valid token in X-Auth-Token."),
    403: ("Forbidden", "Ask with a token of the project, or of an administrator."),
    404: ("NotFound", "GET /v1/builds?kind=all lists what you may see. A build is found by its own id or by its server's."),
    405: ("MethodNotAllowed", "Builds are read with GET, a placement is asked with POST. Servers are made and deleted at /v2.1."),
    413: ("RequestTooLarge", "Send a shorter body."),
    415: ("UnsupportedMediaType", "Send JSON, with Content-Type: application/json."),
    503: ("Unavailable", "Ask again in a few seconds; builds go on meanwhile."),
}
_DEFECT = ("InternalError", "Look into the API's log for the request id that the header x-openstack-request-id of this answer tells.")


def error_body(status: int, message: str, error: HullwrightError | None) -> dict[str, Any]:
    """The body of an error answer."""
    kind, hint = _BY_STATUS.get(status, _DEFECT)
    if error is not None and type(error) is not HttpError:
        kind, hint = type(error).__name__, error.hint or hint
    return {"error": {"code": status, "type": kind, "message": message, "hint": hint}}


def hint(class_name: str | None) -> str:
    """What a person can do about an error of that class."""
    found = errors.find(class_name)
    return found.hint if found is not None else ""
