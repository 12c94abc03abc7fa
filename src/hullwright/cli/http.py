"""The client of the API that the commands share: JSON in and out, uploads and downloads by stream, server-sent events.

Not for: finding things by name; see `find`. Errors are told in one line, in the words of the service.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import IO, Any

import requests
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

from hullwright.cli.identity import Identity
from hullwright.objects.errors import HullwrightError, NotFound, Unavailable

COMPUTE = "/v2.1"
IMAGE = "/image/v2"
NETWORK = "/network/v2.0"
VOLUME = "/volume/v3"
BUILDS = "/v1/builds"
EXPLAIN = "/v1/placement:explain"

DEFAULT_URL = "http://127.0.0.1:8774"
MICROVERSION = "2.96"
CHUNK_BYTES = 1 << 20
# Between tries of a request that may be sent again: a service that died is back within them.
RETRY_PAUSES_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_PASSING = (502, 503, 504)  # statuses of a service, or of a proxy before it, that may soon be well


class ApiUnreachable(Unavailable):
    """Nobody answers at the URL."""

    message = "The API at {url} does not answer: {reason}"
    hint = "Start it with `hullwright up`, or say where it is with --url or HULLWRIGHT_URL."


class ApiError(HullwrightError):
    """The API refused or failed the request."""

    message = "{reason}"


class Unauthorized(ApiError):
    """The API takes nobody without a valid token."""

    hint = "Name a cloud of clouds.yaml with --os-cloud or OS_CLOUD, or set OS_AUTH_URL and its like."


class Gone(NotFound):
    """The API knows no such thing."""

    message = "{reason}"


class Client:
    """One API, all its services."""

    def __init__(self, url: str, timeout_seconds: float = 60.0, identity: Identity | None = None) -> None:
        """`url`: of the root, such as http://127.0.0.1:8774. `identity`: for an API behind Keystone."""
        self.url = url.rstrip("/")
        self.timeout_seconds = timeout_seconds
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy stands between us and a loopback address
        self.session.headers.update(
            {"Accept": "application/json", "OpenStack-API-Version": f"compute {MICROVERSION}", "User-Agent": "hullwright"}
        )
        if identity is not None:
            identity.prepare(self.session)

    def request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """One request.

        Raises: ApiUnreachable; Gone for 404; Unauthorized for 401; ApiError for any other answer of 400 or more.
        """
        arguments.setdefault("timeout", self.timeout_seconds)
        try:
            response = self.session.request(method, self.url + path, **arguments)
        except requests.RequestException as error:
            raise ApiUnreachable(url=self.url, reason=_cause(error)) from error
        if response.status_code >= 400:
            reason = _reason(response)
            kind = {401: Unauthorized, 404: Gone}.get(response.status_code, ApiError)
            raise kind(reason=reason, status=response.status_code)
        return response

    def get(self, path: str, **query: Any) -> Any:
        """GET; the answer's JSON."""
        return self.request("GET", path, params=query).json()

    def post(self, path: str, body: Any) -> Any:
        """POST; the answer's JSON, None when it has no body."""
        response = self.request("POST", path, json=body)
        return response.json() if response.content else None

    def post_once(self, path: str, body: Any) -> Any:
        """POST what must be done once, to a path that heeds an Idempotency-Key; the answer's JSON.

        Sent again, with the same key, when no answer came or the service is not well: it may have been done already.
        """
        tries = Retrying(
            retry=retry_if_exception(_is_passing),
            wait=wait_chain(*map(wait_fixed, RETRY_PAUSES_SECONDS)),
            stop=stop_after_attempt(1 + len(RETRY_PAUSES_SECONDS)),
            reraise=True,
        )
        return tries(self.request, "POST", path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())}).json()

    def delete(self, path: str) -> None:
        """DELETE."""
        self.request("DELETE", path)

    def put_stream(self, path: str, source: IO[bytes], progress: Callable[[int], None]) -> None:
        """PUT a file's bytes; `progress` hears how many have gone."""

        def chunks() -> Iterator[bytes]:
            sent = 0
            while chunk := source.read(CHUNK_BYTES):
                yield chunk
                sent += len(chunk)
                progress(sent)

        # No time limit on the answer: the other end may take long to sync and inspect a large file.
        self.request("PUT", path, data=chunks(), headers={"Content-Type": "application/octet-stream"}, timeout=(self.timeout_seconds, None))

    def get_stream(self, path: str) -> Iterator[bytes]:
        """GET a file's bytes, in chunks."""
        with self.request("GET", path, stream=True, headers={"Accept": "application/octet-stream"}) as response:
            try:
                yield from response.iter_content(CHUNK_BYTES)
            except requests.RequestException as error:
                raise ApiUnreachable(url=self.url, reason=_cause(error)) from error

    def events(self, path: str, last_id: str | None = None) -> Iterator[tuple[str | None, str, Any]]:
        """Server-sent events as (id, event, data), until the stream ends. Comments that keep it alive are left out.

        Raises: ApiUnreachable when it breaks off; go on with the id of the last event that was seen.
        """
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        with self.request("GET", path, stream=True, headers=headers) as response:
            response.encoding = "utf-8"
            identity, event, data = last_id, "message", list[str]()
            try:
                # One byte at a time as requests counts them: a larger chunk would hold back an event until it is full.
                for line in response.iter_lines(chunk_size=1, decode_unicode=True):
                    name, _, value = line.partition(":")
                    value = value.removeprefix(" ")
                    if not line:
                        if data:
                            yield identity, event, json.loads("\n".join(data))
                        event, data = "message", []
                    elif name == "id":
                        identity = value
                    elif name == "event":
                        event = value
                    elif name == "data":
                        data.append(value)
            except requests.RequestException as error:
                raise ApiUnreachable(url=self.url, reason=_cause(error)) from error


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, ApiUnreachable) or (isinstance(error, ApiError) and error.fields.get("status") in _PASSING)


def _cause(error: BaseException) -> str:
    """The system's own word for a failed connection, where there is one: requests and urllib3 wrap it several deep."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(error)


def _reason(response: requests.Response) -> str:
    """What the service says is wrong; every service wraps it in another way."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict):
        for value in [*body.values(), body]:
            if isinstance(value, dict) and isinstance(value.get("message"), str):
                return str(value["message"])
        for name in ("message", "description", "title", "detail"):
            if isinstance(body.get(name), str):
                return str(body[name])
    text = response.text.strip()
    if text and len(text) < 500 and "<" not in text:
        return text
    return f"{response.request.method} {response.url}: {response.status_code} {response.reason}"
