"""The filter of the hint `query`: what cannot be read, what is too long, what it costs. What a query means: `test_equivalence_filters`."""

import json

import pytest

from hullwright.conf import opts
from hullwright.objects.flavors import Flavor
from hullwright.objects.instances import RequestSpec
from hullwright.scheduler import attributes, filters, select
from hullwright.scheduler.columns import Columns, HostRow
from hullwright.scheduler.request import Request

CONF = opts.load([])
WIDE = ["in", "$host", *["h1"] * 99]


def refusals(query) -> list[str]:
    """Why the host h1 does not pass."""
    spec = RequestSpec("i", "p", "u", Flavor("1", "f", 1, 1, 1), scheduler_hints={"query": query})
    request = Request(spec, {}, {}, 0.0, CONF)
    return [each.reason for each in select.apply_filters(Columns([HostRow(1, "h1")]), request, filters.load(["json_query"])).rejections]


@pytest.mark.parametrize(
    "query",
    ["[", "7", '["maybe", 1]', '[["and"], 1]', '[{"a": 1}, 1]', "[null, 1]", ["and", ["=", 1, 1], [[], 1]], "[" * 100_000, '{"a": 1}'],
    ids=lambda query: str(query)[:20],
)
def test_a_query_that_cannot_be_read_says_so(query):
    assert refusals(query) == ["not met by a query that cannot be read"]


def test_a_query_has_so_many_parts_and_no_more():
    assert refusals(WIDE) == refusals(json.dumps(["or", WIDE])) == ["not met by a query of more than 100 parts"]
    assert refusals(WIDE[:-1]) == []


def test_a_query_reads_each_attribute_once(monkeypatch):
    asked, read = [], attributes.read
    monkeypatch.setattr(attributes, "read", lambda hosts, name: asked.append(name) or read(hosts, name))
    assert refusals(["or", *[["=", "$host", "h1"], ["=", "$nothing", 1], ["=", "$hypervisor_version", 1]] * 3]) == []
    assert asked == ["host", "nothing", "hypervisor_version"]
