"""The whole application on a real SQLite database, spoken to without a socket."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from falcon import testing

from hullwright.api.app import create_app
from hullwright.conductor.client import ConductorClient
from hullwright.objects.flavors import Flavor
from hullwright.objects.instances import Instance, RequestSpec
from hullwright.objects.states import TaskState, VmState
from hullwright.persistence import instances
from hullwright.persistence.database import Database, now
from hullwright.persistence.wakeup import Wakeup


@pytest.fixture
def api(db: Database, conf: Any) -> Iterator[testing.TestClient]:
    """The application with its default options: everybody is the administrator of one project."""
    wakeup = Wakeup(db, conf.state_path)
    yield testing.TestClient(create_app(db, conf, ConductorClient(db, conf, wakeup)))
    wakeup.close()


@pytest.fixture
def sqlite_api(sqlite_db: Database, conf: Any) -> Iterator[testing.TestClient]:
    """The same on SQLite, for what is not about SQL, or about SQLite's."""
    wakeup = Wakeup(sqlite_db, conf.state_path)
    yield testing.TestClient(create_app(sqlite_db, conf, ConductorClient(sqlite_db, conf, wakeup)))
    wakeup.close()


@pytest.fixture
def member_api(db: Database, conf: Any) -> Iterator[testing.TestClient]:
    """The application behind a token that Keystone confirmed: a member of the project hullwright, no administrator."""
    conf.set_override("auth_strategy", "keystone", group="api")
    wakeup = Wakeup(db, conf.state_path)
    headers = {
        "X-Identity-Status": "Confirmed",
        "X-Project-Id": "hullwright",
        "X-User-Id": "somebody",
        "X-Roles": "member,reader",
    }
    app = create_app(db, conf, ConductorClient(db, conf, wakeup))
    yield testing.TestClient(app, headers=headers)
    wakeup.close()


@pytest.fixture
def make_instance(db: Database) -> Callable[..., str]:
    """Writes an instance that is being built; answers its uuid."""

    def make(**changes: Any) -> str:
        uuid = str(uuids.uuid4())
        flavor = Flavor("1", "small", 1, 512, 1)
        values: dict[str, Any] = {
            "uuid": uuid,
            "name": "vm",
            "project_id": "hullwright",
            "user_id": "hullwright",
            "vm_state": VmState.BUILDING,
            "task_state": TaskState.SCHEDULING,
            "power_state": 0,
            "flavor": flavor,
            "image_id": None,
            "hostname": "vm",
            "created_at": now(),
            "updated_at": now(),
            "spec": RequestSpec(uuid, "hullwright", "hullwright", flavor),
        }
        with db.write() as conn:
            instances.create(conn, Instance(**(values | changes)))
        return uuid

    return make
