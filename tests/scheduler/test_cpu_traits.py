"""Traits of CPUs: each name of os-traits finds the hosts whose guests have what libvirt calls otherwise."""

import xml.etree.ElementTree as ET

import pytest

from hullwright.conf import opts
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts
from hullwright.objects.instances import RequestSpec
from hullwright.scheduler import cpu_traits, filters, select
from hullwright.scheduler.columns import Columns, HostRow
from hullwright.scheduler.request import Request

LIBVIRTS_WORDS = "/usr/share/libvirt/cpu_map/x86_features.xml"
# All of os-traits' HW_CPU_X86_..., and libvirt's word; None: no feature that a guest may have, or one that libvirt does not know.
FEATURES = {
    "3DNOW": "3dnow",
    "ABM": "abm",
    "AESNI": "aes",
    "AMD_IBPB": "ibpb",
    "AMD_NO_SSB": "amd-no-ssb",
    "AMD_SEV": None,
    "AMD_SEV_ES": None,
    "AMD_SSBD": "amd-ssbd",
    "AMD_SVM": "svm",
    "AMD_VIRT_SSBD": "virt-ssbd",
    "ASF": None,
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX512BITALG": "avx512bitalg",
    "AVX512BW": "avx512bw",
    "AVX512CD": "avx512cd",
    "AVX512DQ": "avx512dq",
    "AVX512ER": "avx512er",
    "AVX512F": "avx512f",
    "AVX512GFNI": "gfni",
    "AVX512IFMA": "avx512ifma",
    "AVX512PF": "avx512pf",
    "AVX512VAES": "vaes",
    "AVX512VBMI": "avx512vbmi",
    "AVX512VBMI2": "avx512vbmi2",
    "AVX512VL": "avx512vl",
    "AVX512VNNI": "avx512vnni",
    "AVX512VPCLMULQDQ": "vpclmulqdq",
    "AVX512VPOPCNTDQ": "avx512-vpopcntdq",
    "BMI": "bmi1",
    "BMI2": "bmi2",
    "CLMUL": "pclmuldq",
    "F16C": "f16c",
    "FMA3": "fma",
    "FMA4": "fma4",
    "INTEL_MD_CLEAR": "md-clear",
    "INTEL_PCID": "pcid",
    "INTEL_SPEC_CTRL": "spec-ctrl",
    "INTEL_SSBD": "ssbd",
    "INTEL_TDX": None,
    "INTEL_VMX": "vmx",
    "MMX": "mmx",
    "MPX": "mpx",
    "PDPE1GB": "pdpe1gb",
    "SGX": "sgx",
    "SHA": "sha-ni",
    "SSE": "sse",
    "SSE2": "sse2",
    "SSE3": "pni",
    "SSE41": "sse4.1",
    "SSE42": "sse4.2",
    "SSE4A": "sse4a",
    "SSSE3": "ssse3",
    "STIBP": "stibp",
    "SVM": "svm",
    "TBM": "tbm",
    "TSX": "rtm",
    "VMX": "vmx",
    "XOP": "xop",
}


def passing(facts, trait, wanted):
    """Which of these hosts pass."""
    hosts = Columns([HostRow(number, f"h{number}", facts=each) for number, each in enumerate(facts, 1)])
    spec = RequestSpec("i", "p", "u", Flavor("1", "f", 1, 1, 1, extra_specs={f"trait:{trait}": wanted}))
    return select.apply_filters(hosts, Request(spec, {}, {}, 0.0, opts.load([])), filters.load(["traits"])).passing.tolist()


def facts_with(*features, virt_types=("kvm", "qemu"), **more):
    return HostFacts("h", "QEMU", 7002022, 1, 1, 1, 1, cpu_features=features, virt_types=virt_types, **more)


def test_each_trait_finds_the_cpu_that_has_it_by_libvirts_word_and_no_other():
    known = {each.get("name") for each in ET.parse(LIBVIRTS_WORDS).iter("feature")}
    for name, word in FEATURES.items():
        others = sorted(known - {word} - ({"amd-stibp"} if name == "STIBP" else set()))
        assert word is None or word in known, name
        hosts = [facts_with(*others), facts_with(*([word] if word else []))]
        assert passing(hosts, f"HW_CPU_X86_{name}", "required") == [False, word is not None], name
        assert passing(hosts, f"HW_CPU_X86_{name}", "forbidden") == [True, word is None], name


@pytest.mark.parametrize(
    ("facts", "passes"),
    [
        (facts_with("avx2"), True),
        (facts_with("avx2", virt_types=("qemu",)), False),  # emulated
        (facts_with("avx2", guest_cpu_features=()), False),  # a CPU model without it
        (facts_with(guest_cpu_features=("avx2",)), True),
        (facts_with("avx2", virt_types=("qemu",), guest_cpu_features=("avx2",)), False),
    ],
)
def test_what_counts_is_the_cpu_that_guests_see(facts, passes):
    assert passing([HostFacts.from_dict(facts.to_dict())], "HW_CPU_X86_AVX2", "required") == [passes]


def test_facts_of_before_the_guests_cpu_was_told_are_read():
    told = facts_with("avx2").to_dict()
    del told["guest_cpu_features"]
    assert HostFacts.from_dict(told).guest_cpu == ("avx2",)


def test_a_trait_of_something_else_is_no_flag():
    assert cpu_traits.flags_of("HW_NIC_SRIOV") == frozenset()
    assert passing([facts_with("nicsriov", "hwnicsriov")], "HW_NIC_SRIOV", "required") == [False]
