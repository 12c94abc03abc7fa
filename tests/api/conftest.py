"""Compute stories: a real application on a real database, asked in process; and the little world that most stories need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import falcon.testing
import pytest

from hullwright.api.app import create_app
from hullwright.conductor.client import ConductorClient
from hullwright.objects.flavors import Flavor
from hullwright.objects.images import Image
from hullwright.objects.networks import Network, Subnet
from hullwright.persistence import flavors, hosts, images, instances, networks
from hullwright.persistence.database import Database, now
from hullwright.persistence.wakeup import Wakeup

GIB = 1024**3


@dataclass
class Answer:
    """What came back."""

    status: int
    json: Any
    headers: Any
    text: str

    @property
    def fault(self) -> tuple[str, str]:
        """(name, message) of an error body."""
        [(name, inner)] = self.json.items()
        assert inner["code"] == self.status
        return name, inner["message"]


class Api:
    """Asks the application."""

    def __init__(self, db: Database, conf: Any, client: ConductorClient) -> None:
        self.db = db
        self.conf = conf
        self.conductor = client
        self.app = create_app(db, conf, client, services=())
        self._client = falcon.testing.TestClient(self.app)
        self.version = "2.100"

    def ask(self, method: str, path: str, json: Any = None, version: str | None = None, **more: Any) -> Answer:
        """One request to /v2.1, in the newest version unless another is given."""
        headers = {"OpenStack-API-Version": f"compute {version or self.version}"} | more.pop("headers", {})
        full = path if more.pop("absolute", False) else f"/v2.1{path}"
        if json is not None:
            more["json"] = json
        result = self._client.simulate_request(method, full, headers=headers, **more)
        return Answer(result.status_code, result.json if result.content else None, result.headers, result.text)

    def get(self, path: str, **more: Any) -> Answer:
        """GET."""
        return self.ask("GET", path, **more)

    def post(self, path: str, json: Any = None, **more: Any) -> Answer:
        """POST."""
        return self.ask("POST", path, json, **more)

    def put(self, path: str, json: Any = None, **more: Any) -> Answer:
        """PUT."""
        return self.ask("PUT", path, json, **more)

    def delete(self, path: str, **more: Any) -> Answer:
        """DELETE."""
        return self.ask("DELETE", path, **more)


@dataclass
class World:
    """Flavor 1, an image of 100 MB, a network with a subnet, a host."""

    image: str
    network: str
    subnet: str
    host: str = "host1"


def add_image(db: Database, **fields: Any) -> str:
    """An image's record; answers its id."""
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "name": "image",
        "size_bytes": 10_000_000,
        "virtual_size_bytes": 100_000_000,
        "created_at": now(),
        "updated_at": now(),
    }
    image = Image(**(values | fields))
    with db.write() as conn:
        images.create(conn, image)
    return image.id


def add_network(db: Database, name: str, cidr: str | None = "192.0.2.0/24", **fields: Any) -> tuple[str, str]:
    """A network, with a subnet unless `cidr` is None; answers both ids."""
    network_id, subnet_id = str(uuid4()), str(uuid4())
    with db.write() as conn:
        networks.create(conn, Network(network_id, name, created_at=now(), **fields))
        if cidr is not None:
            first, last = cidr.replace("0/24", "10"), cidr.replace("0/24", "200")
            networks.create_subnet(
                conn,
                Subnet(subnet_id, network_id, name, cidr, created_at=now(), allocation_pools=((first, last),)),
            )
    return network_id, subnet_id


@pytest.fixture
def api(db: Database, conf: Any, tmp_path: Path) -> Iterator[Api]:
    """The application on each database in turn."""
    wakeup = Wakeup(db, tmp_path)
    yield Api(db, conf, ConductorClient(db, conf, wakeup))
    wakeup.close()


@pytest.fixture
def sqlite_api(sqlite_db: Database, conf: Any, tmp_path: Path) -> Iterator[Api]:
    """The application on SQLite, for what is not about SQL."""
    wakeup = Wakeup(sqlite_db, tmp_path)
    yield Api(sqlite_db, conf, ConductorClient(sqlite_db, conf, wakeup))
    wakeup.close()


def make_world(db: Database) -> World:
    """See `World`."""
    with db.write() as conn:
        flavors.create(conn, Flavor("1", "m1.tiny", vcpus=1, memory_mb=512, root_gb=1, extra_specs={"a": "b"}))
        hosts.register(conn, "host1", "fake:///host1", "fake")
    image = add_image(db, name="cirros", properties={"os_type": "linux"})
    network, subnet = add_network(db, "net1")
    return World(image, network, subnet)


@pytest.fixture
def world(api: Api) -> World:
    """The world of `api`."""
    return make_world(api.db)


@pytest.fixture
def small_world(sqlite_api: Api) -> World:
    """The world of `sqlite_api`."""
    return make_world(sqlite_api.db)


def server_body(world: World, **fields: Any) -> dict[str, Any]:
    """A create request; a field given as None is left out."""
    server = {"name": "vm1", "flavorRef": "1", "imageRef": world.image, "networks": [{"uuid": world.network}]} | fields
    return {"server": {name: value for name, value in server.items() if value is not None}}


def create(api: Api, world: World, version: str | None = None, **fields: Any) -> str:
    """Create a server; answers its id."""
    answer = api.post("/servers", server_body(world, **fields), version=version)
    assert answer.status == 202, answer.text
    return str(answer.json["server"]["id"])


def set_columns(api: Api, uuid: str, **changes: Any) -> None:
    """Change an instance's row as a conductor would."""
    with api.db.write() as conn:
        instances.update(conn, uuid, **changes)


def activate(api: Api, uuid: str) -> None:
    """End an instance's build as a conductor would."""
    import sqlalchemy as sa

    from hullwright.persistence.models.jobs import jobs

    set_columns(api, uuid, vm_state="active", task_state=None, power_state=1, host="host1", node="host1", launched_at=now())
    with api.db.write() as conn:
        conn.execute(sa.update(jobs).where(jobs.c.instance_uuid == uuid).values(state="done", finished_at=now()))
