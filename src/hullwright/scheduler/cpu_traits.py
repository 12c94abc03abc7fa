"""CPU traits: the names that os-traits has for features of x86 CPUs, and libvirt's words for the same.

Not for: which hosts have them; see `filters/traits`.
"""

from __future__ import annotations

import re

PREFIX = "HW_CPU_X86_"
# Where the trait's word is not the flag's; libvirt's words are in its cpu_map/x86_features.xml. Of several, one is enough.
_FLAGS: dict[str, tuple[str, ...]] = {
    "AESNI": ("aes",),
    "AMD_IBPB": ("ibpb",),
    "AMD_SVM": ("svm",),
    "AMD_VIRT_SSBD": ("virt-ssbd",),
    "AVX512GFNI": ("gfni",),
    "AVX512VAES": ("vaes",),
    "AVX512VPCLMULQDQ": ("vpclmulqdq",),
    "BMI": ("bmi1",),
    "CLMUL": ("pclmuldq", "pclmulqdq"),  # libvirt's, QEMU's
    "FMA3": ("fma",),
    "INTEL_MD_CLEAR": ("md-clear",),
    "INTEL_PCID": ("pcid",),
    "INTEL_SPEC_CTRL": ("spec-ctrl",),
    "INTEL_SSBD": ("ssbd",),
    "INTEL_VMX": ("vmx",),
    "SHA": ("sha-ni",),
    "SSE3": ("pni", "sse3"),
    "STIBP": ("stibp", "amd-stibp"),
    "TSX": ("rtm",),  # hle may be off and transactions work; not the other way round
}


def flags_of(trait: str) -> frozenset[str]:
    """The flags, as `bare` writes them, any of which gives a CPU the trait; none for a trait that is not of an x86 CPU."""
    if not trait.startswith(PREFIX):
        return frozenset()
    word = trait.removeprefix(PREFIX)
    return frozenset(map(bare, _FLAGS.get(word, (word,))))


def bare(flag: str) -> str:
    """sse4.1, SSE41 and sse4_1 are one."""
    return re.sub(r"[^a-z0-9]", "", flag.lower())
