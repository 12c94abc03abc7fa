"""Error bodies of the Network API: {"NeutronError": {"type", "message", "detail"}}, with Neutron's names for the types."""

from __future__ import annotations

from typing import Any

from hullwright.objects.errors import HullwrightError

_TYPES = {
    "FixedIpAlreadyInUse": "IpAddressAlreadyAllocated",
    "InvalidIpForNetwork": "InvalidIpForNetwork",
    "NoMoreFixedIps": "IpAddressGenerationFailure",
    "DatabaseUnavailable": "ServiceUnavailable",
}
_BY_STATUS = {
    400: "BadRequest",
    401: "HTTPUnauthorized",
    403: "HTTPForbidden",
    404: "HTTPNotFound",
    405: "HTTPMethodNotAllowed",
    409: "Conflict",
    413: "RequestTooLarge",
    501: "HTTPNotImplemented",
    503: "ServiceUnavailable",
}


def error_body(status: int, message: str, error: HullwrightError | None) -> dict[str, Any]:
    """The body."""
    name = type(error).__name__ if error is not None else "HttpError"
    kind = _BY_STATUS.get(status, "HTTPInternalServerError") if name in ("HttpError", "NotSupported") else _TYPES.get(name, name)
    return {"NeutronError": {"type": kind, "message": message, "detail": ""}}
