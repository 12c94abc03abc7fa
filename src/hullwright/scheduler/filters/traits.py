"""Passes hosts that have the traits that flavor and image require, and none that they forbid.

Asked for by `trait:NAME` (or `trait<group>:NAME`) with `required` or `forbidden`, names as in os-traits. A host has the traits of its CPU
(HW_CPU_X86_...), where its guests see that CPU, and those that the metadata of its aggregates give it: `trait:NAME` = `required`.
A trait that nobody knows is nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hullwright.scheduler.columns import Columns, Mask
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request

_KEY = re.compile(r"^trait[\w-]*:(\w+)$")
_OF_CPU = "HW_CPU_X86_"
# Where os-traits has another word than the kernel and libvirt.
_FLAGS = {"AESNI": "aes", "CLMUL": "pclmuldq", "F16C": "f16c", "SHA": "sha-ni", "TSX": "rtm", "AMDSVM": "svm", "INTELVMX": "vmx"}


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that lack one that is required or have one that is forbidden, and say which."""
    for name, wanted in sorted(_asked(request.spec.flavor.extra_specs) | _asked(request.spec.image_properties)):
        has = _having(hosts, name)
        if wanted == "required":
            yield has, f"without trait {name}"
        else:
            yield ~has, f"with trait {name}"


def _asked(properties: Mapping[str, str]) -> set[tuple[str, str]]:
    found = ((_KEY.match(key), wanted) for key, wanted in properties.items() if wanted in ("required", "forbidden"))
    return {(match[1], wanted) for match, wanted in found if match}


def _having(hosts: Columns, name: str) -> Mask:
    _, given = hosts.aggregates.with_value(f"trait:{name}", lambda word: word == "required")
    if not name.startswith(_OF_CPU):
        return given
    short = name.removeprefix(_OF_CPU).replace("_", "")
    flag = _bare(_FLAGS.get(short, short))
    has_flag: Mask = hosts.cpu_features.matching(lambda words: any(_bare(word) == flag for word in words.split()))
    # An emulated guest has the CPU that its emulator makes.
    return given | (has_flag & hosts.virt_types.having("kvm"))


def _bare(flag: str) -> str:
    """sse4.1, SSE41 and sse4_1 are one."""
    return re.sub(r"[^a-z0-9]", "", flag.lower())
