"""Errors as answers: each service's form of body, the status by the error's class, nothing internal told to a client.

Compute's form is {"<fault>": {"code": .., "message": ..}}; other services register theirs in `ApiContext.error_bodies`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import falcon
import orjson

from hullwright.api import unsupported
from hullwright.api.context import ApiContext, Caller, ErrorBody
from hullwright.objects.errors import HullwrightError

LOG = logging.getLogger(__name__)

JSON = "application/json"
RETRY_AFTER_SECONDS = 5
_RETRIED = frozenset({429, 503})  # not 413: a body that is too long will be so again

_FAULTS = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


class HttpError(HullwrightError):
    """A refusal that is the API's own: a status and a text."""

    is_for_users = True

    def __init__(self, status: int, text: str) -> None:
        """`status`: HTTP; it shadows the class's code."""
        super().__init__(text)
        self.status = status


class NotSupported(HttpError):
    """The service whose API this is would do it; we do not."""

    def __init__(self, what: str, status: int = 501) -> None:
        """`what`: the rest of the sentence "Hullwright does not ..."; `status` 410: that service does not either, any more."""
        removed = "This API was removed. " if status == 410 else ""
        super().__init__(status, f"{removed}Hullwright does not {what}.")


def no_such_action(name: str, known: Mapping[str, str]) -> HttpError:
    """The error for an action that is not served; `known`: those that are named when they are asked for, see `unsupported`."""
    return NotSupported(known[name]) if name in known else HttpError(400, f"There is no such action: {name[:100]}")


def status_of(error: HullwrightError) -> int:
    """The HTTP status that an error answers with."""
    return error.status if isinstance(error, HttpError) else error.code


def compute_body(status: int, message: str, error: HullwrightError | None = None) -> dict[str, Any]:
    """The body of a compute error."""
    fault: dict[str, Any] = {"code": status, "message": message}
    if status in _RETRIED:
        fault["retryAfter"] = str(RETRY_AFTER_SECONDS)
    return {_FAULTS.get(status, "computeFault"): fault}


class ErrorHandlers:
    """Falcon's error handlers for the whole application."""

    def __init__(self, context: ApiContext) -> None:
        """Bodies are chosen by the path's prefix when an error occurs, so services may register later."""
        self._bodies = context.error_bodies

    def install(self, app: falcon.App[falcon.Request, falcon.Response]) -> None:
        """Make `app` answer every error through here."""
        app.add_error_handler(Exception, self.unexpected)
        app.add_error_handler(falcon.HTTPError, self.http)
        app.add_error_handler(HullwrightError, self.ours)

    def ours(self, req: falcon.Request, resp: falcon.Response, error: HullwrightError, params: Mapping[str, Any]) -> None:
        """An error of our tree: its class knows the status, and whether its text is for administrators only."""
        status = status_of(error)
        if status >= 500 and status != 501:  # 501: the client asked for something that is not there
            LOG.error("%s %s: %s: %s", req.method, req.path, type(error).__name__, error.text)
        asks: Caller | None = getattr(req.context, "caller", None)  # unknown yet when the error came before it
        self._answer(req, resp, status, error.text if asks is not None and asks.is_admin else error.text_for_users, error)

    def http(self, req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: Mapping[str, Any]) -> None:
        """What Falcon itself refuses: no such route, no such method, a header or body it cannot read."""
        if error.status_code in (404, 405) and (refusal := unsupported.found(req.method, req.path)):
            self.ours(req, resp, NotSupported(refusal.what, refusal.status), params)
            return
        message = error.description or _TEXTS.get(error.status_code, error.title or "The request was refused.")
        if error.status_code in _TEXTS and error.status_code in (404, 405):
            message = _TEXTS[error.status_code]
        if error.headers:
            resp.set_headers(error.headers)
        self._answer(req, resp, error.status_code, message, None)

    def unexpected(self, req: falcon.Request, resp: falcon.Response, error: Exception, params: Mapping[str, Any]) -> None:
        """A defect: its trace goes to the log, the client gets the class's name and the request id's header."""
        LOG.exception("%s %s: unexpected error", req.method, req.path)
        message = f"Unexpected API Error. Please report it with the request id of this answer and what the log says.\n{type(error)}"
        self._answer(req, resp, 500, message, None)

    def _answer(self, req: falcon.Request, resp: falcon.Response, status: int, message: str, error: HullwrightError | None) -> None:
        resp.status = status
        resp.content_type = "application/json; charset=UTF-8"
        resp.data = orjson.dumps(self._body_form(req.path)(status, message, error))
        resp.text = None
        resp.media = None
        resp.stream = None
        if status in _RETRIED:
            resp.set_header("Retry-After", str(RETRY_AFTER_SECONDS))

    def _body_form(self, path: str) -> ErrorBody:
        for prefix, body in self._bodies.items():
            if path == prefix or path.startswith(prefix + "/"):
                return body
        return compute_body


_TEXTS = {
    404: "The resource could not be found.",
    405: "The method is not allowed for this resource.",
}
