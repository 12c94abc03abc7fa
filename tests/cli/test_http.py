"""The commands' HTTP client, against a real server on a socket: what it sends, how it reads events, how it tells errors."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from hullwright.cli import http


class Answers(BaseHTTPRequestHandler):
    """Answers each path with what is on the list, and keeps what it was asked."""

    protocol_version = "HTTP/1.1"
    answers: dict[str, tuple[int, str, bytes]] = {}
    asked: list[tuple[str, str, dict[str, str], bytes]] = []

    def _answer(self) -> None:
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append((self.command, self.path, dict(self.headers), body))
        status, kind, answer = self.answers[self.path]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815  (http.server wants these names)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


@pytest.fixture
def answers() -> Iterator[type[Answers]]:
    """A server; set `answers`, read `asked`."""
    Answers.answers, Answers.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    Answers.answers["url"] = (0, f"http://127.0.0.1:{server.server_port}", b"")
    yield Answers
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def client(answers: type[Answers]) -> Iterator[http.Client]:
    """A client of that server."""
    client = http.Client(answers.answers["url"][1])
    yield client
    client.session.close()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"badRequest": {"code": 400, "message": "Invalid flavor."}}, "Invalid flavor."),
        ({"NeutronError": {"type": "X", "message": "In use.", "detail": ""}}, "In use."),
        ({"message": "Plain."}, "Plain."),
        ({"title": "Bad", "description": "Worse."}, "Worse."),
    ],
)
def test_an_error_is_told_in_the_words_of_the_service(client: http.Client, answers: type[Answers], body: Any, told: str) -> None:
    answers.answers["/x"] = (400, "application/json", json.dumps(body).encode())
    with pytest.raises(http.ApiError, match=told):
        client.get("/x")


def test_404_is_gone(client: http.Client, answers: type[Answers]) -> None:
    answers.answers["/x"] = (404, "application/json", b'{"itemNotFound": {"code": 404, "message": "No such thing."}}')
    with pytest.raises(http.Gone, match="No such thing"):
        client.get("/x")


def test_a_page_of_html_is_told_by_its_status(client: http.Client, answers: type[Answers]) -> None:
    answers.answers["/x"] = (502, "text/html", b"<html>proxy</html>")
    with pytest.raises(http.ApiError, match="502 Bad Gateway"):
        client.get("/x")


def test_nobody_there_says_how_to_start_it() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(http.ApiUnreachable) as caught:
        http.Client(url).get("/x")
    assert str(caught.value) == f"The API at {url} does not answer: Connection refused"
    assert "hullwright up" in caught.value.hint


def test_an_upload_is_streamed_and_counted(client: http.Client, answers: type[Answers]) -> None:
    answers.answers["/file"] = (204, "text/plain", b"")
    data = bytes(range(256)) * 10_000
    counted: list[int] = []
    client.put_stream("/file", io.BytesIO(data), counted.append)
    assert answers.asked[0][3] == data
    assert counted == [1 << 20, 2 << 20, len(data)]


def test_a_download_arrives_whole(client: http.Client, answers: type[Answers]) -> None:
    data = bytes(range(256)) * 10_000
    answers.answers["/file"] = (200, "application/octet-stream", data)
    assert b"".join(client.get_stream("/file")) == data


def test_events_are_read_with_ids_and_comments_are_left_out(client: http.Client, answers: type[Answers]) -> None:
    stream = b': hello\n\nid: 1\nevent: step\ndata: {"a": 1}\n\n: alive\n\nid: 2\ndata: [1,\ndata: 2]\n\n'
    answers.answers["/events"] = (200, "text/event-stream", stream)
    assert list(client.events("/events", last_id="0")) == [("1", "step", {"a": 1}), ("2", "message", [1, 2])]
    assert answers.asked[0][2]["Last-Event-ID"] == "0"


def test_no_proxy_of_the_environment_is_used(client: http.Client, answers: type[Answers], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    answers.answers["/x"] = (200, "application/json", b"{}")
    assert client.get("/x") == {}


def test_what_must_be_done_once_is_sent_again_with_the_same_key_until_the_service_is_well(
    client: http.Client, answers: type[Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "RETRY_PAUSES_SECONDS", (0.05, 0.05))
    answers.answers["/x"] = (503, "application/json", b'{"serviceUnavailable": {"code": 503, "message": "Locked."}}')
    with pytest.raises(http.ApiError, match="Locked"):
        client.post_once("/x", {"a": 1})
    sent = [headers["Idempotency-Key"] for _, _, headers, _ in answers.asked]
    assert (len(sent), len(set(sent))) == (3, 1)
    answers.answers["/x"] = (202, "application/json", b'{"b": 2}')
    assert client.post_once("/x", {"a": 1}) == {"b": 2}
    assert answers.asked[-1][2]["Idempotency-Key"] != sent[0]


def test_what_is_refused_is_not_sent_again(client: http.Client, answers: type[Answers]) -> None:
    answers.answers["/x"] = (409, "application/json", b'{"conflictingRequest": {"code": 409, "message": "No."}}')
    with pytest.raises(http.ApiError, match=r"No\."):
        client.post_once("/x", {})
    assert len(answers.asked) == 1
