"""What is wrong with a request whatever it is for: bodies, paths, and what a client learns of a defect or a database that is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from hullwright.api.app import create_app
from hullwright.conductor.client import ConductorClient
from hullwright.persistence import instances
from hullwright.persistence.database import Database
from hullwright.persistence.wakeup import Wakeup

from .conftest import Api, World, create, server_body

TYPE = {"Content-Type": "application/json"}


@pytest.mark.parametrize("body", ["", "{", "[1,", "nul", '{"a": NaN}', "\x00", '"\\ud800"', "[" * 3000])
def test_a_malformed_body_is_400(sqlite_api: Api, body: str) -> None:
    answer = sqlite_api.post("/servers", body=body, headers=TYPE)
    assert answer.fault == ("badRequest", "Malformed request body")


@pytest.mark.parametrize("body", [[], {}, "text", 7, None, {"server": []}, {"server": {}}, {"servers": {}}])
def test_a_body_of_the_wrong_shape_is_400(sqlite_api: Api, body: Any) -> None:
    import json

    answer = sqlite_api.post("/servers", body=json.dumps(body), headers=TYPE)
    assert (answer.status, answer.fault[0]) == (400, "badRequest")


def test_another_content_type_is_415(sqlite_api: Api) -> None:
    answer = sqlite_api.post("/servers", body="a=b", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status, answer.fault[0]) == (415, "badMediaType")


def test_too_long_a_body_is_413_and_nobody_is_told_to_try_again(sqlite_api: Api) -> None:
    answer = sqlite_api.post("/servers", body='{"a": "' + "x" * 300_000 + '"}', headers=TYPE)
    assert (answer.status, answer.fault[0]) == (413, "overLimit")
    assert "Retry-After" not in answer.headers
    assert "retryAfter" not in answer.json["overLimit"]


def test_unknown_paths_and_methods_have_the_usual_form(sqlite_api: Api) -> None:
    assert sqlite_api.get("/nothing").fault == ("itemNotFound", "The resource could not be found.")
    assert sqlite_api.delete("/servers").fault == ("badMethod", "The method is not allowed for this resource.")
    assert sqlite_api.get("/servers?name=a%00b").fault[0] == "badRequest"
    assert sqlite_api.get("/servers/a%00b").status in (400, 404)


def test_a_defect_is_500_and_leaks_nothing(sqlite_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(instances, "get_row", broken)
    answer = sqlite_api.get("/servers/70a599e0-31e7-49b7-b260-868f441e862b")
    name, message = answer.fault
    assert (answer.status, name) == (500, "computeFault")
    assert "hunter2" not in message
    assert "RuntimeError" in message


def test_a_locked_database_is_503_and_nothing_is_half_done(sqlite_api: Api, small_world: World, conf: Any, tmp_path: Path) -> None:
    impatient = Database(sqlite_api.db.url, busy_timeout_seconds=0.1)
    wakeup = Wakeup(impatient, tmp_path)
    other = Api(impatient, conf, ConductorClient(impatient, conf, wakeup))
    with sqlite_api.db.write():
        answer = other.post("/servers", server_body(small_world))
        assert (answer.status, answer.fault[0]) == (503, "serviceUnavailable")
        assert answer.headers["Retry-After"]
    assert other.get("/servers").json == {"servers": []}
    create(other, small_world)
    wakeup.close()
    impatient.close()


def test_a_full_disk_is_503_and_nothing_is_half_done(sqlite_api: Api, small_world: World, conf: Any, tmp_path: Path) -> None:
    full = Database(sqlite_api.db.url)

    def no_more_pages(dbapi: Any, _record: Any) -> None:
        dbapi.execute("PRAGMA max_page_count=1")  # SQLite makes it the size that the file has

    event.listen(full.engine, "connect", no_more_pages)
    wakeup = Wakeup(full, tmp_path)
    other = Api(full, conf, ConductorClient(full, conf, wakeup))
    answers = [other.post("/servers", server_body(small_world, max_count=100)) for _ in range(2)]
    assert (answers[-1].status, answers[-1].fault[0]) == (503, "serviceUnavailable")
    accepted = sum(answer.status == 202 for answer in answers)
    assert len(sqlite_api.get("/servers").json["servers"]) == 100 * accepted
    wakeup.close()
    full.close()


def test_health_needs_the_database(conf: Any, tmp_path: Path) -> None:
    missing = tmp_path / "directory"
    missing.mkdir()
    db = Database(f"sqlite:///{missing}/x.db")
    missing.rmdir()
    wakeup = Wakeup(db, tmp_path)
    api = Api(db, conf, ConductorClient(db, conf, wakeup))
    answer = api.get("/healthz", absolute=True)
    assert (answer.status, answer.fault[0]) == (503, "serviceUnavailable")
    missing.mkdir()
    assert api.get("/healthz", absolute=True).json == {"status": "ok"}
    wakeup.close()
    db.close()


def test_links_begin_with_the_public_url_when_one_is_set(sqlite_api: Api, small_world: World) -> None:
    sqlite_api.conf.set_override("public_url", "https://cloud.example.org/compute/", group="api")
    answer = sqlite_api.post("/servers", server_body(small_world))
    uuid = answer.json["server"]["id"]
    assert answer.headers["Location"] == f"https://cloud.example.org/compute/v2.1/servers/{uuid}"


def test_all_routes_of_the_table_are_served(sqlite_api: Api) -> None:
    app = create_app(sqlite_api.db, sqlite_api.conf, sqlite_api.conductor, services=())
    for path in ("/v2.1/extensions", "/v2.1/os-server-groups", "/v2.1/os-aggregates", "/identity/v3"):
        assert app._router.find(path) is not None
        assert sqlite_api.get(path, absolute=True).status == 200
