"""What an extra spec asks of a value: operators in front of words, as flavors written for Nova have them.

">= 4096"   numbers: == != >= <=, and = which means >=
"s== QEMU"  texts: s== s!= s>= s> s<= s<
"<in> avx2"  "<all-in> avx2 aes"  "<or> 10 <or> 25"
anything else is compared as it is
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
}
_TEXTS: dict[str, Callable[[str, str], bool]] = {
    "s==": operator.eq,
    "s!=": operator.ne,
    "s>=": operator.ge,
    "s>": operator.gt,
    "s<=": operator.le,
    "s<": operator.lt,
}


def match(value: str, wanted: str) -> bool:
    """Whether `value` is what `wanted` asks for. A number that cannot be read matches nothing."""
    sign, *words = wanted.split() or [""]
    if sign == "<or>":
        return value in words[::2]
    if sign == "<in>":
        return bool(words) and words[0] in value
    if sign == "<all-in>":
        return bool(words) and all(word in value for word in words)
    if sign in _TEXTS:
        return bool(words) and _TEXTS[sign](value, words[0])
    if sign in _NUMBERS:
        try:
            return bool(words) and _NUMBERS[sign](float(value), float(words[0]))
        except ValueError:
            return False
    return value == wanted


def match_numbers(values: NDArray[Any], wanted: str) -> NDArray[np.bool_] | None:
    """The same of an array of numbers at once; None when `wanted` asks of texts."""
    sign, *words = wanted.split() or [""]
    if sign not in _NUMBERS:
        return None
    try:
        found: NDArray[np.bool_] = _NUMBERS[sign](values.astype(float), float(words[0]))
    except (ValueError, IndexError):
        return np.zeros(len(values), dtype=bool)
    return found
