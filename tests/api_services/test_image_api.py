"""The Image API: records, uploads that are whole or nothing, downloads, and what is refused."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from falcon import testing

from hullwright.conf import image as image_conf
from hullwright.drivers.image.local.store import ImageDirectory
from hullwright.objects.errors import ImageStorageFull
from hullwright.objects.states import JobState
from hullwright.persistence import images, jobs
from hullwright.persistence.database import Database
from support.effort import count_calls

BYTES = b"a disk of 1 KiB " * 64
OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = "application/openstack-images-v2.1-json-patch"


def create(api: testing.TestClient, **more: Any) -> str:
    body = {"name": "disk", "disk_format": "raw", "container_format": "bare", **more}
    result = api.simulate_post("/image/v2/images", json=body)
    assert result.status_code == 201, result.text
    return str(result.json["id"])


def upload(api: testing.TestClient, image_id: str, data: bytes = BYTES, **headers: str) -> testing.Result:
    return api.simulate_put(f"/image/v2/images/{image_id}/file", body=data, headers={**OCTETS, **headers})


def show(api: testing.TestClient, image_id: str) -> Any:
    result = api.simulate_get(f"/image/v2/images/{image_id}")
    assert result.status_code == 200
    return result.json


def patch(api: testing.TestClient, image_id: str, *operations: dict[str, Any]) -> testing.Result:
    return api.simulate_patch(f"/image/v2/images/{image_id}", body=json.dumps(operations), headers={"Content-Type": PATCH})


def qcow2(backing: bool = False, size: int = 1 << 30) -> bytes:
    """The smallest header that is whole: one L1 entry per cluster, tables within the file."""
    cluster = 1 << 16
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 512 if backing else 0, 4 if backing else 0, 16, size, 0, 2, cluster, 2 * cluster, 1, 0, 0
    )
    return header.ljust(3 * cluster, b"\0")


def test_an_image_is_queued_then_active_with_its_sizes_and_checksums(api: testing.TestClient) -> None:
    image_id = create(api, os_type="linux", min_disk=1)
    assert show(api, image_id)["status"] == "queued"
    assert show(api, image_id)["size"] is None
    assert upload(api, image_id).status_code == 204
    image = show(api, image_id)
    assert (image["status"], image["size"], image["virtual_size"]) == ("active", len(BYTES), len(BYTES))
    assert image["checksum"] == hashlib.md5(BYTES).hexdigest()
    assert (image["os_hash_algo"], image["os_hash_value"]) == ("sha256", hashlib.sha256(BYTES).hexdigest())
    assert (image["os_type"], image["min_disk"], image["owner"]) == ("linux", 1, "hullwright")


def test_the_bytes_come_back_whole_or_by_range(api: testing.TestClient) -> None:
    image_id = create(api)
    assert api.simulate_get(f"/image/v2/images/{image_id}/file").status_code == 204
    upload(api, image_id)
    whole = api.simulate_get(f"/image/v2/images/{image_id}/file")
    assert (whole.content, whole.headers["content-length"]) == (BYTES, str(len(BYTES)))
    for header, expected in (("bytes=10-19", BYTES[10:20]), ("bytes=1000-", BYTES[1000:]), ("bytes=-7", BYTES[-7:])):
        part = api.simulate_get(f"/image/v2/images/{image_id}/file", headers={"Range": header})
        assert (part.status_code, part.content) == (206, expected)
    assert part.headers["content-range"] == f"bytes {len(BYTES) - 7}-{len(BYTES) - 1}/{len(BYTES)}"
    assert api.simulate_get(f"/image/v2/images/{image_id}/file", headers={"Range": "bytes=5000-"}).status_code == 416


def test_an_active_image_takes_no_second_upload(api: testing.TestClient) -> None:
    image_id = create(api)
    upload(api, image_id)
    assert upload(api, image_id, b"other").status_code == 409
    assert api.simulate_get(f"/image/v2/images/{image_id}/file").content == BYTES


@pytest.mark.parametrize(
    ("declared", "data", "reason"),
    [
        ("qcow2", qcow2(backing=True), "backing file"),
        ("qcow2", BYTES, "declared qcow2"),
        ("raw", qcow2(), "declared raw"),
        ("raw", b"KDMV" + BYTES, "vmdk"),
        ("raw", b"", "empty"),
    ],
)
def test_an_image_that_may_not_be_used_is_killed_with_the_reason(
    api: testing.TestClient, tmp_path: Path, declared: str, data: bytes, reason: str
) -> None:
    image_id = create(api, disk_format=declared)
    refused = upload(api, image_id, data)
    assert refused.status_code == 400
    assert reason in refused.json["message"]
    image = show(api, image_id)
    assert image["status"] == "killed"
    assert reason in image["hullwright_refused"]
    assert not list(tmp_path.glob("images/*"))
    assert api.simulate_delete(f"/image/v2/images/{image_id}").status_code == 204


def test_a_whole_qcow2_is_taken_with_the_size_that_the_guest_sees(api: testing.TestClient) -> None:
    image_id = create(api, disk_format="qcow2")
    assert upload(api, image_id, qcow2()).status_code == 204
    assert show(api, image_id)["virtual_size"] == 1 << 30


def test_an_upload_that_is_cut_off_leaves_nothing_and_may_be_repeated(api: testing.TestClient, tmp_path: Path) -> None:
    image_id = create(api)
    cut = upload(api, image_id, BYTES, **{"X-OpenStack-Image-Size": str(len(BYTES) + 1)})
    assert cut.status_code == 400
    assert show(api, image_id)["status"] == "queued"
    assert not list(tmp_path.glob("images/*"))
    assert upload(api, image_id).status_code == 204


def test_a_full_disk_is_told_and_the_image_stays_queued(api: testing.TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(self: ImageDirectory, image_id: str, *_: Any) -> None:
        raise ImageStorageFull(id=image_id, reason="No space left on device")

    image_id = create(api)
    with monkeypatch.context() as patched:
        patched.setattr(ImageDirectory, "write", full)
        result = upload(api, image_id)
    assert result.status_code == 413
    assert "No space left" in result.json["message"]
    assert show(api, image_id)["status"] == "queued"
    assert upload(api, image_id).status_code == 204


def test_an_image_that_is_too_large_is_refused_before_its_bytes(api: testing.TestClient, tmp_path: Path) -> None:
    image_id = create(api)
    result = upload(api, image_id, b"", **{"X-OpenStack-Image-Size": str(1 << 60)})
    assert result.status_code == 413
    assert show(api, image_id)["status"] == "queued"


def test_the_upload_of_an_image_deleted_meanwhile_leaves_no_bytes(
    api: testing.TestClient, db: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image_id = create(api)
    write = ImageDirectory.write

    def delete_then_write(self: ImageDirectory, *args: Any) -> tuple[int, str, str]:
        with db.write() as conn:
            images.delete(conn, image_id)
        return write(self, *args)

    monkeypatch.setattr(ImageDirectory, "write", delete_then_write)
    assert upload(api, image_id).status_code == 410
    assert not list(tmp_path.glob("images/*"))


def test_an_upload_that_lost_its_record_to_a_later_one_does_not_finish(db: Database, api: testing.TestClient) -> None:
    image_id = create(api)
    with db.write() as conn:
        assert images.begin_upload(conn, image_id, 1.0)
        assert images.begin_upload(conn, image_id, 2.0)
        images.update(conn, image_id, name="renamed meanwhile")
        assert not images.end_upload(conn, image_id, 1.0, status="active")
        assert images.end_upload(conn, image_id, 2.0, status="active")


def test_a_second_upload_at_the_same_time_is_refused_and_the_first_one_finishes(api: testing.TestClient, conf: Any) -> None:
    image_id = create(api)
    directory = ImageDirectory(image_conf.directory(conf))
    answers: list[int] = []

    def chunks() -> Iterator[bytes]:
        yield BYTES
        answers.append(upload(api, image_id).status_code)  # while this one holds the part

    directory.write(image_id, chunks(), 1 << 20)
    assert answers == [409]
    assert upload(api, image_id).status_code == 204


def test_attributes_and_properties_are_patched_in_both_media_types(api: testing.TestClient) -> None:
    image_id = create(api, os_type="linux")
    result = patch(
        api,
        image_id,
        {"op": "replace", "path": "/name", "value": "new"},
        {"op": "add", "path": "/hw_disk_bus", "value": "scsi"},
        {"op": "replace", "path": "/min_disk", "value": 3},
        {"op": "add", "path": "/tags", "value": ["a", "b"]},
        {"op": "remove", "path": "/os_type"},
    )
    assert result.status_code == 200
    image = show(api, image_id)
    assert (image["name"], image["hw_disk_bus"], image["min_disk"], image["tags"]) == ("new", "scsi", 3, ["a", "b"])
    assert "os_type" not in image
    old = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
    body = [{"replace": "/hw_disk_bus", "value": "virtio"}]
    assert api.simulate_patch(f"/image/v2/images/{image_id}", body=json.dumps(body), headers=old).json["hw_disk_bus"] == "virtio"


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ({"op": "replace", "path": "/status", "value": "active"}, 403),
        ({"op": "replace", "path": "/checksum", "value": "0"}, 403),
        ({"op": "remove", "path": "/name"}, 403),
        ({"op": "replace", "path": "/no_such", "value": "x"}, 409),
        ({"op": "remove", "path": "/no_such"}, 409),
        ({"op": "replace", "path": "/min_disk", "value": "many"}, 400),
        ({"op": "add", "path": "/prop", "value": 5}, 400),
        ({"op": "move", "path": "/name", "from": "/x"}, 400),
        ({"op": "replace", "path": "/a/b", "value": "x"}, 400),
    ],
)
def test_a_patch_that_cannot_be_is_refused(api: testing.TestClient, operation: dict[str, Any], status: int) -> None:
    image_id = create(api)
    before = show(api, image_id)
    assert patch(api, image_id, operation).status_code == status
    assert show(api, image_id) == before


def test_a_protected_image_is_not_deleted(api: testing.TestClient) -> None:
    image_id = create(api, protected=True)
    assert api.simulate_delete(f"/image/v2/images/{image_id}").status_code == 403
    patch(api, image_id, {"op": "replace", "path": "/protected", "value": False})
    assert api.simulate_delete(f"/image/v2/images/{image_id}").status_code == 204
    assert api.simulate_get(f"/image/v2/images/{image_id}").status_code == 404


def test_an_image_that_a_build_reads_is_not_deleted(api: testing.TestClient, db: Database, make_instance: Any) -> None:
    image_id = create(api)
    upload(api, image_id)
    uuid = make_instance(image_id=image_id)
    with db.write() as conn:
        jobs.post(conn, kind="build_instance", instance_uuid=uuid, inputs={})
    refused = api.simulate_delete(f"/image/v2/images/{image_id}")
    assert (refused.status_code, "in use" in refused.json["message"]) == (409, True)
    with db.write() as conn:
        jobs.cancel_open(conn, uuid)
        assert jobs.latest(conn, uuid).state == JobState.CANCELLED  # type: ignore[union-attr]
    assert api.simulate_delete(f"/image/v2/images/{image_id}").status_code == 204


def listed(api: testing.TestClient, query: str) -> list[str]:
    result = api.simulate_get("/image/v2/images", query_string=query)
    assert result.status_code == 200, result.text
    return [image["name"] for image in result.json["images"]]


def test_a_list_is_filtered_sorted_and_paged(api: testing.TestClient) -> None:
    for name in ("b", "a", "c"):
        create(api, name=name, os_type=f"os-{name}", tags=[name, "all"], visibility="public" if name == "a" else "private")
    assert listed(api, "") == ["c", "a", "b"]
    assert listed(api, "sort=name:asc") == ["a", "b", "c"]
    assert listed(api, "sort_key=name&sort_dir=desc") == ["c", "b", "a"]
    assert listed(api, "name=b") == ["b"]
    assert sorted(listed(api, "name=in:a,b")) == ["a", "b"]
    assert listed(api, "visibility=public") == ["a"]
    assert listed(api, "os_type=os-c") == ["c"]
    assert listed(api, "tag=a&tag=all") == ["a"]
    assert listed(api, "status=active") == []
    assert listed(api, "min_disk=99999999999") == []
    assert listed(api, "os_hidden=true") == []
    assert listed(api, "created_at=lt:2001-01-01T00:00:00Z") == []
    first = api.simulate_get("/image/v2/images", query_string="sort=name:asc&limit=2").json
    assert [image["name"] for image in first["images"]] == ["a", "b"]
    path, _, query = first["next"].partition("?")
    assert path == "/v2/images"
    assert listed(api, query) == ["c"]


def test_a_list_by_tag_or_property_reads_what_it_shows(sqlite_api: testing.TestClient) -> None:
    for number in range(3):
        create(sqlite_api, name=f"i{number}", tags=["all"], colour="red")
    queries = ("tag=all&limit=2", "colour=red&limit=2")
    few = [count_calls(lambda query=query: listed(sqlite_api, query)) for query in queries]  # type: ignore[misc]
    for number in range(3, 60):
        create(sqlite_api, name=f"i{number}", tags=["all"], colour="red")
    for query, calls in zip(queries, few, strict=True):
        assert count_calls(lambda query=query: listed(sqlite_api, query)) < 1.2 * calls  # type: ignore[misc]
        assert listed(sqlite_api, query) == ["i59", "i58"]


def test_a_tag_or_property_is_found_as_it_is_and_not_within_another(api: testing.TestClient) -> None:
    create(api, name="quoted", tags=['x"b"y', "ab", "B"], note='"colour":"red"', shade="colour")
    create(api, name="plain", tags=["b"], colour="red")
    create(api, name="umlaut", tags=["bläu"], colour='"rot"')
    assert listed(api, "tag=b") == ["plain"]
    assert listed(api, "tag=x%22b%22y") == ["quoted"]
    assert listed(api, "tag=bl%C3%A4u") == ["umlaut"]
    assert listed(api, "colour=red") == ["plain"]
    assert listed(api, "colour=%22rot%22") == ["umlaut"]
    assert listed(api, "colour=red&tag=ab") == []


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=x", "marker=none", "sort=colour:asc", "sort=name:up", "protected=maybe", "size_min=-5"]
)
def test_a_list_asked_for_wrongly_is_refused(api: testing.TestClient, query: str) -> None:
    assert api.simulate_get("/image/v2/images", query_string=query).status_code == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": 5}, 400),
        ({"disk_format": "vmdk"}, 400),
        ({"visibility": "secret"}, 400),
        ({"status": "active"}, 403),
        ({"prop": {"nested": 1}}, 400),
        ({"name": "nul\0"}, 400),
        ({"x" * 256: "long"}, 400),
        ({"id": "../../etc"}, 400),
        ([], 400),
    ],
)
def test_a_record_that_cannot_be_is_refused_in_the_image_apis_form(api: testing.TestClient, body: Any, status: int) -> None:
    result = api.simulate_post("/image/v2/images", json=body)
    assert result.status_code == status
    assert set(result.json) == {"message", "code", "title"}


def test_the_schema_says_which_attributes_are_base_ones(api: testing.TestClient) -> None:
    shown = set(show(api, create(api)))
    schema = api.simulate_get("/image/v2/schemas/image").json
    assert shown <= set(schema["properties"])
    assert api.simulate_get("/image/v2/schemas/images").status_code == 200
    assert api.simulate_get("/image/v2/schemas/other").status_code == 404


def test_a_deactivated_image_comes_back(api: testing.TestClient) -> None:
    image_id = create(api)
    assert api.simulate_post(f"/image/v2/images/{image_id}/actions/deactivate").status_code == 403
    upload(api, image_id)
    assert api.simulate_post(f"/image/v2/images/{image_id}/actions/deactivate").status_code == 204
    assert show(api, image_id)["status"] == "deactivated"
    assert api.simulate_post(f"/image/v2/images/{image_id}/actions/reactivate").status_code == 204
    assert show(api, image_id)["status"] == "active"
