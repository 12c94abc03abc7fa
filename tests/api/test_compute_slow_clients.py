"""Clients that are slow, silent, broken or lying, against real worker processes: each is ended in bounded time, and nobody else waits."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.cli.http import MICROVERSION
from hullwright.persistence.models.instances import instances
from support.api_process import THREADS, ServedHouse, drain, sockets

WAIT_SECONDS = 1.5
PROMPT_SECONDS = 5.0  # for an answer that nothing holds up, on a machine that does much else
IMPATIENT = f"""
from hullwright.api import worker
worker.WAIT_SECONDS = worker.SEND_SECONDS = {WAIT_SECONDS}
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedHouse]:
    """A house whose API waits for nobody for long."""
    made = ServedHouse(tmp_path_factory.mktemp("house"))
    made.start_api(IMPATIENT)
    yield made
    made.close()


def count(house: ServedHouse) -> int:
    """How many instances there are."""
    with house.db.read() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(instances)) or 0)


def request(house: ServedHouse, length: int | None = None, key: str = "", body: Any = None) -> bytes:
    """The bytes of a create request; `length`: what is said of the body's."""
    data = json.dumps(body or house.body()).encode()
    head = f"POST /v2.1/servers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length or len(data)}\r\n"
    head += f"OpenStack-API-Version: compute {MICROVERSION}\r\n"
    if key:
        head += f"Idempotency-Key: {key}\r\n"
    return head.encode() + b"\r\n" + data


def is_prompt(house: ServedHouse, within_seconds: float = PROMPT_SECONDS) -> bool:
    """Whether others are answered, and soon."""
    began = time.monotonic()
    return house.answers() and time.monotonic() - began < within_seconds


def statuses(data: bytes) -> list[int]:
    """Of all answers in there."""
    return [int(line.split()[1]) for line in data.split(b"\r\n") if line.startswith(b"HTTP/1.")]


def test_the_whole_request_makes_one(house: ServedHouse) -> None:
    before = count(house)
    with sockets(1, house.port) as (peer,):
        peer.sendall(request(house))
        assert statuses(peer.recv(4096)) == [202]
    assert count(house) == before + 1


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_half_a_request_makes_nothing(house: ServedHouse, share: float) -> None:
    before, whole = count(house), request(house)
    with sockets(THREADS * 3, house.port) as peers:
        for peer in peers:
            peer.sendall(whole[: int(len(whole) * share)])
    assert is_prompt(house), house.api_log()
    assert count(house) == before


def test_a_body_that_is_shorter_than_it_says_makes_nothing(house: ServedHouse) -> None:
    before = count(house)
    whole = request(house)
    head, _, data = whole.partition(b"\r\n\r\n")
    lie = head.replace(f"Content-Length: {len(data)}".encode(), f"Content-Length: {len(data) + 10}".encode())
    with sockets(1, house.port) as (peer,):
        peer.sendall(lie + b"\r\n\r\n" + data)
        peer.shutdown(socket.SHUT_WR)
        answer, _ = drain(peer)
    assert statuses(answer) == [400]
    assert b"ended before its announced length" in answer
    assert count(house) == before


@pytest.mark.parametrize(
    "length", ["5", "-1", "x", "1, 2", "99999999999999999999", "5\r\nTransfer-Encoding: chunked", "5\r\nContent-Length: 6"]
)
def test_a_length_that_is_wrong_makes_nothing_and_ends_the_connection(house: ServedHouse, length: str) -> None:
    before = count(house)
    head, _, data = request(house).partition(b"\r\n\r\n")
    lie = head.replace(f"Content-Length: {len(data)}".encode(), f"Content-Length: {length}".encode())
    with sockets(1, house.port) as (peer,):
        peer.sendall(lie + b"\r\n\r\n" + data)
        answer, seconds = drain(peer)
    assert statuses(answer), house.api_log()
    assert all(400 <= status < 500 for status in statuses(answer))
    assert seconds < WAIT_SECONDS + PROMPT_SECONDS
    assert count(house) == before


def test_a_body_that_comes_byte_by_byte_is_taken(house: ServedHouse) -> None:
    before, whole = count(house), request(house, key="bytes")
    with sockets(1, house.port) as (peer,):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(whole)):
            peer.sendall(whole[number : number + 1])
        assert statuses(peer.recv(4096)) == [202]
    assert count(house) == before + 1


@pytest.mark.parametrize("part", ["head", "body", "chunk"])
def test_clients_that_trickle_are_ended_and_others_are_served(house: ServedHouse, part: str) -> None:
    """As many as there are threads, twice over, each a byte now and then: enough to never be silent for long."""
    before = count(house)
    start = request(house).partition(b'"server"')[0] if part == "body" else b"POST /v2.1/servers HTTP/1.1\r\nHost: x\r\nX-Long: "
    if part == "chunk":
        start = b"POST /v2.1/servers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"
    began = time.monotonic()
    with sockets(THREADS * 2, house.port) as peers:
        for peer in peers:
            peer.sendall(start)
        open_ones = set(peers)
        while open_ones and time.monotonic() - began < 30:
            for peer in list(open_ones):
                try:
                    peer.sendall(b" ")
                except OSError:
                    open_ones.discard(peer)
            time.sleep(0.2)
        seconds = time.monotonic() - began
        assert not open_ones, "some were let trickle"
        assert seconds < 2 * WAIT_SECONDS + PROMPT_SECONDS * 2
        assert is_prompt(house), house.api_log()
    assert count(house) == before


def test_what_a_client_sends_after_it_was_given_up_is_no_new_request(house: ServedHouse) -> None:
    before, whole = count(house), request(house)
    head = whole.partition(b"\r\n\r\n")[0]
    with sockets(1, house.port) as (peer,):
        peer.sendall(head + b"\r\n\r\n{")
        time.sleep(WAIT_SECONDS + 0.5)
        try:
            peer.sendall(whole)
            answer, _ = drain(peer)
        except OSError:
            answer = b""
    assert statuses(answer) in ([], [400])
    assert count(house) == before


def test_a_connection_reset_before_the_answer_makes_one_server_however_often_it_is_sent(house: ServedHouse) -> None:
    before, whole = count(house), request(house, key="reset", body=house.body("reset"))
    sent, deadline = 0, time.monotonic() + 60
    while sent < 5 or count(house) == before:  # what no worker has read yet goes with the connection
        assert time.monotonic() < deadline
        with sockets(1, house.port) as (peer,):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
            peer.sendall(whole)
            time.sleep(0.05)
        sent += 1
    answer = house.post(house.body("reset"), "reset")
    assert (answer.status_code, answer.headers["Idempotent-Replayed"]) == (202, "true")
    assert count(house) == before + 1


def test_two_hundred_connections_kept_open_and_two_hundred_silent_ones_hold_up_nobody(house: ServedHouse) -> None:
    with sockets(200, house.port) as kept, sockets(200, house.port) as silent:
        for peer in kept:
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        for peer in kept:
            assert is_well(peer)
        assert is_prompt(house), house.api_log()
        for peer in (kept[0], kept[-1], silent[0], silent[-1]):
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert is_well(peer)


def is_well(peer: socket.socket) -> bool:
    """Read one whole answer to /healthz: its head and its body may come apart."""
    answer = b""
    while not answer.endswith(b'{"status":"ok"}'):
        if not (more := peer.recv(4096)):
            break
        answer += more
    return answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'{"status":"ok"}')


@pytest.mark.parametrize(
    "head",
    [b"GET /" + b"x" * 70_000, b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * 70_000, b"GET / HTTP/1.1\r\n" + b"X-Many: 1\r\n" * 5000],
    ids=["line", "header", "headers"],
)
def test_an_oversized_head_is_refused_without_reading_it_all(house: ServedHouse, head: bytes) -> None:
    with sockets(1, house.port) as (peer,):
        try:
            peer.sendall(head)
            answer, seconds = drain(peer)
        except ConnectionError:
            answer, seconds = b"", 0.0
    assert all(400 <= status < 500 for status in statuses(answer))
    assert seconds < WAIT_SECONDS + PROMPT_SECONDS
    assert is_prompt(house), house.api_log()


def test_a_key_that_is_too_long_is_refused_in_the_services_own_words(house: ServedHouse) -> None:
    answer = house.post(house.body(), "k" * 256)
    assert (answer.status_code, answer.json()["badRequest"]["code"]) == (400, 400)


def test_clients_that_do_not_read_their_answer_are_left(house: ServedHouse) -> None:
    image_id = house.add_image(64 << 20)
    with sockets(THREADS * 2, house.port) as peers:
        for peer in peers:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.sendall(f"GET /image/v2/images/{image_id}/file HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.3)
        assert is_prompt(house, 2 * WAIT_SECONDS + PROMPT_SECONDS), house.api_log()


def test_a_worker_that_stops_does_not_wait_for_silent_connections(tmp_path: Path) -> None:
    house = ServedHouse(tmp_path)
    try:
        process = house.start_api()
        with sockets(20, house.port):
            time.sleep(0.3)
            process.terminate()
            process.join(15)
            assert process.exitcode == 0
    finally:
        house.close()


def test_the_workers_outlived_all_of_it(house: ServedHouse) -> None:
    log = house.api_log()
    assert "Worker (pid" not in log, log[-3000:]
    assert "Unexpected" not in log
    assert "unexpected error" not in log, log[-3000:]
    assert house.post(house.body("last")).status_code == 202
