"""Which version a request is answered in, and how that is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hullwright.api import microversions
from hullwright.api.errors import HttpError

from .conftest import Api


@given(minor=st.integers(1, 100))
def test_a_served_version_is_used_from_either_header(minor: int) -> None:
    assert microversions.negotiate(f"compute 2.{minor}", None) == minor
    assert microversions.negotiate(None, f"2.{minor}") == minor
    assert microversions.negotiate(f"identity 3.1, Compute 2.{minor}", "2.1") == minor


@given(text=st.text(max_size=12))
def test_any_other_text_is_refused_as_malformed_or_not_served(text: str) -> None:
    if text.strip() == "latest" or text.strip() in {f"2.{minor}" for minor in range(1, 101)}:
        return
    with pytest.raises(HttpError) as caught:
        microversions.negotiate(None, text)
    assert caught.value.status in (400, 406)


@given(major=st.integers(1, 9), minor=st.integers(0, 400))
def test_a_version_out_of_range_is_406(major: int, minor: int) -> None:
    if major == 2 and 1 <= minor <= 100:
        return
    with pytest.raises(HttpError) as caught:
        microversions.negotiate(f"compute {major}.{minor}", None)
    assert caught.value.status == 406


def test_no_header_means_the_oldest_and_latest_the_newest(sqlite_api: Api) -> None:
    assert microversions.negotiate(None, None) == 1
    assert microversions.negotiate("identity 3.14", None) == 1
    answer = sqlite_api.get("/servers", version="latest")
    assert answer.headers["OpenStack-API-Version"] == "compute 2.100"


def test_errors_tell_version_and_request_id_too(sqlite_api: Api) -> None:
    answer = sqlite_api.get("/servers/nope", version="2.60")
    assert answer.fault == ("itemNotFound", "Instance nope could not be found.")
    assert answer.headers["X-OpenStack-Nova-API-Version"] == "2.60"
    assert answer.headers["Vary"] == "OpenStack-API-Version, X-OpenStack-Nova-API-Version"
    assert answer.headers["x-compute-request-id"] == answer.headers["x-openstack-request-id"]
    assert answer.headers["x-compute-request-id"].startswith("req-")


@pytest.mark.parametrize(
    ("version", "status", "name", "message"),
    [
        ("2.101", 406, "computeFault", "Version 2.101 is not supported by the API. Minimum is 2.1 and maximum is 2.100."),
        ("1.1", 406, "computeFault", "Version 1.1 is not supported by the API. Minimum is 2.1 and maximum is 2.100."),
        ("abc", 400, "badRequest", "API Version String abc is of invalid format. Must be of format MajorNum.MinorNum."),
        ("2.x", 400, "badRequest", "API Version String 2.x is of invalid format. Must be of format MajorNum.MinorNum."),
    ],
)
def test_a_bad_version_is_told_in_the_words_that_clients_know(sqlite_api: Api, version: str, status: int, name: str, message: str) -> None:
    answer = sqlite_api.get("/servers", version=version)
    assert answer.status == status
    assert answer.fault == (name, message)
    assert "OpenStack-API-Version" in answer.headers["Vary"]


def test_a_method_outside_its_window_looks_unimplemented(sqlite_api: Api) -> None:
    assert sqlite_api.get("/servers/x/tags", version="2.25").fault == ("itemNotFound", "The resource could not be found.")
    assert sqlite_api.get("/os-hypervisors/statistics", version="2.87").status == 200
    assert sqlite_api.get("/os-hypervisors/statistics", version="2.88").status == 404


def test_the_roots_tell_the_range_whatever_version_is_asked(sqlite_api: Api) -> None:
    versions = sqlite_api.get("/", absolute=True).json["versions"]
    assert [(v["id"], v["min_version"], v["version"]) for v in versions] == [("v2.1", "2.1", "2.100")]
    for path in ("/v2.1", "/v2.1/", "/v2.1/versions/v2.1"):
        version = sqlite_api.get(path, absolute=True).json["version"]
        assert version["status"] == "CURRENT"
        assert version["links"][0]["href"].endswith("/v2.1/")
    assert sqlite_api.get("/versions/v2.0").fault[0] == "itemNotFound"


def test_a_project_id_in_the_path_must_be_the_callers(sqlite_api: Api) -> None:
    assert sqlite_api.get("/hullwright/servers").json == {"servers": []}
    answer = sqlite_api.get("/somebody/servers")
    assert answer.status == 400
    assert "doesn't match Context's project_id" in answer.fault[1]
