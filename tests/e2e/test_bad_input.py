"""What cannot be built on real hosts: refused at the door, or an ERROR that names the cause. Nothing half-done either way."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cloud import Cloud
from support.libvirtd import GuestImage

pytestmark = [pytest.mark.slow, pytest.mark.libvirt]
UNKNOWN = "9f0c8a52-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def _nothing_half_done(cloud: Cloud) -> Iterator[None]:
    """However a test of this file ends, the installation is whole and holds no server."""
    yield
    cloud.delete(*(server["id"] for server in cloud.call("GET", "/servers")["servers"]))
    cloud.check()


def _qcow2(path: Path, *arguments: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *arguments[:-1], str(path), *arguments[-1:]], check=True, timeout=30)
    return path


def test_an_image_with_a_backing_file_is_refused_at_upload_and_not_stored(cloud: Cloud, guest_image: GuestImage, tmp_path: Path) -> None:
    overlay = _qcow2(tmp_path / "overlay.qcow2", "-b", str(guest_image.raw), "-F", "raw", "1G")
    image = cloud.begin_image("overlay", "qcow2")
    with overlay.open("rb") as source:
        answer = cloud.ask(
            "PUT", f"/image/v2/images/{image}/file", data=source, headers={"Content-Type": "application/octet-stream"}
        )  # fmt: skip
    assert answer.status_code == 400
    assert "backing file" in answer.text
    assert cloud.call("GET", f"/image/v2/images/{image}")["status"] == "killed"
    assert cloud.files_about(image) == []
    cloud.call("DELETE", f"/image/v2/images/{image}")


def test_an_image_that_rots_in_the_store_is_not_given_to_a_guest(cloud: Cloud, parts: dict[str, str], guest_image: GuestImage) -> None:
    image = cloud.upload("rotten", guest_image.qcow2)
    (stored,) = cloud.files_about(image)
    with open(stored, "r+b") as file:
        file.seek(5_000_000)
        byte = file.read(1)
        file.seek(5_000_000)
        file.write(bytes([byte[0] ^ 1]))
    server_id = cloud.create("rotten", image=image, flavor=parts["flavor"], networks=[{"uuid": parts["network"]}])
    server = cloud.await_status(server_id, "ERROR")
    assert "ImageCorrupt" in server["fault"]["message"]
    assert "its sha256 is" in server["fault"]["details"]
    assert image in server["fault"]["details"]
    assert [attempt["step"] for attempt in cloud.build(server_id)["attempts"] if attempt["host"]] == ["fetch_image"] * 2
    assert cloud.files_about(image) == [stored], "no host keeps what is not whole"


def test_an_image_that_is_larger_than_the_flavors_disk_is_refused_at_the_door(cloud: Cloud, parts: dict[str, str], tmp_path: Path) -> None:
    image = cloud.upload("wide", _qcow2(tmp_path / "wide.qcow2", "3G"))
    answer = cloud.ask("POST", "/servers", {"server": _server(parts, imageRef=image)})
    assert answer.status_code == 400
    assert "Flavor's disk is too small for requested image" in answer.json()["badRequest"]["message"]
    assert cloud.call("GET", "/servers")["servers"] == []


def _server(parts: dict[str, str], **changes: Any) -> dict[str, Any]:
    return {"name": "no", "imageRef": parts["image"], "flavorRef": parts["flavor"], "networks": "none", **changes}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flavorRef": "no-such"}, "Flavor no-such could not be found"),
        ({"imageRef": UNKNOWN}, f"{UNKNOWN}"),
        ({"networks": [{"uuid": UNKNOWN}]}, f"{UNKNOWN}"),
        ({"networks": "some"}, "networks"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_words(cloud: Cloud, parts: dict[str, str], change: dict[str, Any], words: str) -> None:
    answer = cloud.ask("POST", "/servers", {"server": _server(parts, **change)})
    assert (answer.status_code, list(answer.json())) == (400, ["badRequest"])
    assert words in answer.json()["badRequest"]["message"]
    assert cloud.call("GET", "/servers")["servers"] == []


def test_a_server_that_fits_nowhere_is_an_error_that_counts_the_hosts(cloud: Cloud, parts: dict[str, str]) -> None:
    flavor = cloud.flavor("huge", memory_mb=10_000_000)
    server_id = cloud.create("huge", image=parts["image"], flavor=flavor, networks=[{"uuid": parts["network"]}])
    server = cloud.await_status(server_id, "ERROR")
    assert server["fault"]["message"].startswith("No valid host was found. 0 of 2 hosts fit: 2 ")
    assert "10000000 MB memory" in server["fault"]["message"]
    assert server["fault"]["message"].endswith(": ask for less, or have a larger one added.")
    assert cloud.call("GET", "/network/v2.0/ports", params={"device_id": server_id})["ports"] == []
