"""The Block Storage API: volumes as jobs, what is in use, and who may see what."""

from __future__ import annotations

from typing import Any

import pytest
from falcon import testing

from hullwright.objects.volumes import BlockDeviceRequest, Volume
from hullwright.persistence import images, jobs, volumes
from hullwright.persistence.database import Database
from hullwright.persistence.volumes import SqlVolumeStore

V3 = "/volume/v3"


def post(api: testing.TestClient, **body: Any) -> testing.Result:
    return api.simulate_post(f"{V3}/volumes", json={"volume": {"size": 1, **body}})


def create(api: testing.TestClient, db: Database, *, status: str = "available", **body: Any) -> str:
    """A volume, in the status to which a conductor would have brought it."""
    result = post(api, **body)
    assert result.status_code == 202, result.text
    volume_id = str(result.json["volume"]["id"])
    with db.write() as conn:
        volumes.set_status(conn, volume_id, status)
    return volume_id


def show(api: testing.TestClient, volume_id: str) -> Any:
    return api.simulate_get(f"{V3}/volumes/{volume_id}").json["volume"]


def posted(db: Database) -> list[tuple[str, str]]:
    """Kind and volume of the jobs, oldest first."""
    with db.read() as conn:
        return [(job.kind, job.inputs["volume_id"]) for job in reversed(jobs.list_jobs(conn))]


def test_a_new_volume_is_creating_and_a_job_makes_it(api: testing.TestClient, db: Database) -> None:
    result = post(api, name="data", size="2", description="d", metadata={"a": "b"}, multiattach=False, snapshot_id=None)
    assert result.status_code == 202
    volume = result.json["volume"]
    assert (volume["status"], volume["size"], volume["bootable"], volume["metadata"]) == ("creating", 2, "false", {"a": "b"})
    assert posted(db) == [("create_volume", volume["id"])]
    assert show(api, volume["id"]) == volume


def test_a_volume_is_deleted_by_a_job_once(api: testing.TestClient, db: Database) -> None:
    volume_id = create(api, db)
    assert api.simulate_delete(f"{V3}/volumes/{volume_id}").status_code == 202
    assert show(api, volume_id)["status"] == "deleting"
    again = api.simulate_delete(f"{V3}/volumes/{volume_id}")
    assert (again.status_code, "deleting" in again.json["badRequest"]["message"]) == (400, True)
    assert posted(db) == [("create_volume", volume_id), ("delete_volume", volume_id)]


def test_a_servers_volume_shows_it_and_is_not_deleted(api: testing.TestClient, db: Database) -> None:
    volume_id = create(api, db)
    store = SqlVolumeStore(db)
    [bond] = store.reserve("server-1", "hullwright", "u", [BlockDeviceRequest("5d2c", volume_id, device_name="/dev/vdb")])
    store.mark_attached([bond.id], "host-1")
    volume = show(api, volume_id)
    [attached] = volume["attachments"]
    assert (volume["status"], attached["server_id"], attached["device"]) == ("in-use", "server-1", "/dev/vdb")
    assert api.simulate_delete(f"{V3}/volumes/{volume_id}").status_code == 400
    found = api.simulate_get(f"{V3}/attachments/detail", query_string=f"volume_id={volume_id}").json["attachments"]
    assert [(each["id"], each["instance"], each["status"]) for each in found] == [("5d2c", "server-1", "attached")]
    assert api.simulate_get(f"{V3}/attachments/5d2c").json["attachment"]["volume_id"] == volume_id
    assert api.simulate_get(f"{V3}/attachments/none").status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"size": 0}, 400),
        ({"size": "big"}, 400),
        ({"size": None}, 400),
        ({"size": True}, 400),
        ({"volume_type": "gold"}, 404),
        ({"imageRef": "none"}, 400),
        ({"snapshot_id": "some"}, 400),
        ({"no_such": 1}, 400),
        ({"metadata": {"a": 1}}, 400),
    ],
)
def test_a_volume_that_cannot_be_is_refused_and_no_job_posted(
    api: testing.TestClient, db: Database, body: dict[str, Any], status: int
) -> None:
    result = post(api, **body)
    assert result.status_code == status
    assert next(iter(result.json)) in ("badRequest", "itemNotFound")
    assert posted(db) == []


def test_a_volume_from_an_image_must_hold_it(api: testing.TestClient, db: Database) -> None:
    body = {"name": "disk", "disk_format": "raw", "container_format": "bare"}
    image_id = api.simulate_post("/image/v2/images", json=body).json["id"]
    assert "not active" in post(api, imageRef=image_id).json["badRequest"]["message"]
    with db.write() as conn:
        images.update(conn, image_id, status="active", size_bytes=10, virtual_size_bytes=(2 << 30) + 1)
    assert "3GB" in post(api, imageRef=image_id, size=2).json["badRequest"]["message"]
    volume = post(api, imageRef=image_id, size=3).json["volume"]
    assert (volume["bootable"], volume["volume_image_metadata"]) == ("true", {"image_id": image_id})
    refused = api.simulate_delete(f"/image/v2/images/{image_id}")
    assert refused.status_code == 409  # the volume is being filled from it


def test_name_description_metadata_and_bootable_are_changed(api: testing.TestClient, db: Database) -> None:
    volume_id = create(api, db, metadata={"a": "b"})
    path = f"{V3}/volumes/{volume_id}"
    assert api.simulate_put(path, json={"volume": {"name": "new", "description": None}}).json["volume"]["name"] == "new"
    assert api.simulate_post(f"{path}/metadata", json={"metadata": {"c": "d"}}).json == {"metadata": {"a": "b", "c": "d"}}
    assert api.simulate_delete(f"{path}/metadata/a").status_code == 200
    assert api.simulate_delete(f"{path}/metadata/a").status_code == 404
    assert api.simulate_get(f"{path}/metadata").json == {"metadata": {"c": "d"}}
    assert api.simulate_put(f"{path}/metadata", json={"metadata": {}}).json == {"metadata": {}}
    assert api.simulate_post(f"{path}/action", json={"os-set_bootable": {"bootable": True}}).status_code == 200
    assert show(api, volume_id)["bootable"] == "true"
    assert api.simulate_post(f"{path}/action", json={"os-extend": {"new_size": 9}}).status_code == 501


def test_volumes_are_listed_filtered_and_paged(api: testing.TestClient, db: Database) -> None:
    for name in ("b", "a", "c"):
        create(api, db, name=name, status="error" if name == "a" else "available")

    def listed(query: str = "", path: str = "volumes/detail") -> list[str]:
        return [volume["name"] for volume in api.simulate_get(f"{V3}/{path}", query_string=query).json["volumes"]]

    assert listed() == ["c", "a", "b"]
    assert listed(path="volumes") == ["c", "a", "b"]
    assert listed("sort=name:asc") == ["a", "b", "c"]
    assert listed("status=error") == ["a"]
    assert listed("name=b") == ["b"]
    assert listed("all_tenants=1&project_id=other") == []
    first = api.simulate_get(f"{V3}/volumes/detail", query_string="sort=name:asc&limit=2").json
    assert listed(first["volumes_links"][0]["href"].partition("?")[2]) == ["c"]
    assert api.simulate_get(f"{V3}/volumes", query_string="marker=none").status_code == 400


def test_a_project_id_may_stand_in_the_path(api: testing.TestClient, member_api: testing.TestClient, db: Database) -> None:
    volume_id = create(api, db)
    for path in ("volumes", "volumes/detail", f"volumes/{volume_id}", "types", "limits"):
        assert api.simulate_get(f"{V3}/hullwright/{path}").status_code == 200
    assert member_api.simulate_get(f"{V3}/hullwright/volumes").status_code == 200
    assert member_api.simulate_get(f"{V3}/other/volumes").status_code == 400


def test_another_projects_volume_is_not_found(member_api: testing.TestClient, db: Database) -> None:
    with db.write() as conn:
        volumes.create(conn, Volume("8d7f", "theirs", 1, project_id="other"))
    assert member_api.simulate_get(f"{V3}/volumes/8d7f").status_code == 404
    assert member_api.simulate_delete(f"{V3}/volumes/8d7f").status_code == 404
    assert member_api.simulate_get(f"{V3}/volumes/detail", query_string="all_tenants=1").json["volumes"] == []


def test_versions_types_limits_and_zones_are_told(api: testing.TestClient, db: Database) -> None:
    create(api, db, size=3)
    assert api.simulate_get("/volume").json["versions"][0]["min_version"] == "3.0"
    [kind] = api.simulate_get(f"{V3}/types").json["volume_types"]
    assert api.simulate_get(f"{V3}/types/{kind['id']}").json["volume_type"] == kind
    assert api.simulate_get(f"{V3}/types/none").status_code == 404
    absolute = api.simulate_get(f"{V3}/limits").json["limits"]["absolute"]
    assert (absolute["totalVolumesUsed"], absolute["totalGigabytesUsed"]) == (1, 3)
    assert api.simulate_get(f"{V3}/os-availability-zone").json["availabilityZoneInfo"][0]["zoneName"] == "nova"


@pytest.mark.parametrize(
    ("asked", "status", "answered"), [("volume 3.10", 200, "3.10"), ("volume 3.99", 406, None), ("compute 2.1", 200, "3.0")]
)
def test_the_microversion_is_agreed_on(api: testing.TestClient, asked: str, status: int, answered: str | None) -> None:
    result = api.simulate_get(f"{V3}/types", headers={"OpenStack-API-Version": asked})
    assert result.status_code == status
    assert result.headers.get("openstack-api-version") == (f"volume {answered}" if answered else None)
