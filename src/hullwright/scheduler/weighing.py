"""Weighing: the weights of the hosts that passed, and which of these are the best, for one scheduler and for one of several.

Not for: what a weigher looks at; each is a file of its own in `weighers/`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import isfinite

import numpy as np

from hullwright.objects.placement import WeighedHost
from hullwright.scheduler.columns import Columns, Floats, Integers, Mask
from hullwright.scheduler.request import Request
from hullwright.scheduler.weighers import Weigher

_LESS, _MORE = 1.0 - 1e-6, 1.0 + 1e-6  # times what a request makes of a difference: not quite as much, and as much
_VISITS = 0.1  # share of the choices that go to the hosts of others all the same
_MANY, _BLOCK = 4096, 64  # from so many weights on, and in blocks of so many, the best are looked for


@dataclass(frozen=True, slots=True)
class Weighed:
    """The weights of the hosts that passed, in their order."""

    total: Floats
    parts: dict[str, Floats]  # by weigher; those that told hosts apart
    step: float  # how much less a host weighs once it holds the request too; 0 when it weighs more then
    steps: dict[str, float]  # how much less by weigher, of those by which it weighs less then

    def host(self, name: str, at: int) -> WeighedHost:
        """One of them, for people."""
        parts = {weigher: round(float(part[at]), 6) for weigher, part in self.parts.items()}
        return WeighedHost(name, round(float(self.total[at]), 6), parts)


def weigh(hosts: Columns, request: Request, passing: Mask, chain: list[Weigher]) -> Weighed:
    """The weight of each passing host, and what each weigher gave to it."""
    positions = np.flatnonzero(passing)
    total = np.zeros(len(positions))
    parts: dict[str, Floats] = {}
    changes: dict[str, float] = {}
    for each in chain if len(positions) else ():
        multiplier = each.multipliers(hosts)
        if isinstance(multiplier, np.ndarray):
            multiplier = multiplier[positions]
        elif not multiplier:
            continue
        share = each.weigh(hosts, request)[positions].astype(float, copy=False)  # a copy already, which may be changed
        lowest, highest = float(share.min()), float(share.max())
        if not isfinite(highest - lowest):  # some are unknown: these count as the least
            known = np.isfinite(share)
            lowest = float(share[known].min()) if known.any() else 0.0
            share[~known] = lowest
            highest = float(share.max())
        least = lowest
        if each.least is not None:
            least = each.least
            if lowest < least:
                np.maximum(share, least, out=share)
        if highest <= least:
            continue
        changes[each.name] = float(np.max(multiplier)) * each.taken(request) / (highest - least)
        if highest > lowest or isinstance(multiplier, np.ndarray):  # in place: with very many hosts, fresh arrays cost more than the sums
            share -= least
            share *= multiplier
            share /= highest - least
            parts[each.name] = share
            total += share
    return Weighed(total, parts, max(0.0, -sum(changes.values())), {name: -change for name, change in changes.items() if change < 0})


def about_as_good(weighed: Weighed, *, within: float = _LESS) -> Integers:
    """The positions of the best hosts, and of those that differ from the best by less than this request makes of a difference.

    By each weigher, not only in sum: where one more build under way makes much of a difference, a much fuller host would seem as good.
    `within`: how many times the difference that this request makes is about as good.
    """
    near: Integers = np.flatnonzero(weighed.total >= weighed.total.max() - weighed.step * within)
    first = near[np.argmax(weighed.total[near])]
    for name, step in weighed.steps.items():
        part = weighed.parts.get(name)
        if part is not None and len(near) > 1:
            near = near[part[near] >= part[first] - step * within]
    return near


def of_turn(weighed: Weighed, host_ids: Integers, turn: tuple[int, int], *, within: float = _LESS) -> int | None:
    """The host that one of several schedulers prefers, as a position: of those about as good as the best, the best of its own, if any.

    So schedulers that choose at the same time do not meet. `turn`: its number, and how many they are; `within`: as for `about_as_good`.
    """
    number, count = turn
    near = about_as_good(weighed, within=within)
    own = near[host_ids[near] % count == number]
    return int(own[np.argmax(weighed.total[own])]) if len(own) else None


def among_others(weighed: Weighed, host_ids: Integers, turn: tuple[int, int]) -> int:
    """The host that a scheduler takes which prefers none of the best, as a position: mostly one of its own that is one request fuller.

    The best ones are as good as taken by those that prefer them; now and then it goes there all the same, in case they are not at work.
    """
    own = of_turn(weighed, host_ids, turn, within=_MORE)
    return int(random.choice(about_as_good(weighed))) if own is None or random.random() < _VISITS else own


def best(weights: Floats, wanted: int, turn: float = 0.0) -> Integers:
    """Positions of the `wanted` largest weights, largest first; among equals the first ones, counted from `turn` of all on.

    Does not sort the rest.
    """
    start = int(turn * len(weights)) % len(weights)
    if start:
        turned: Integers = (best(np.roll(weights, -start), wanted) + start) % len(weights)
        return turned
    if len(weights) <= max(wanted, 64):
        return np.argsort(-weights, kind="stable")[:wanted]
    if len(weights) >= _MANY:
        # Each block's largest is one of the weights: as many blocks as are wanted have one that is not below the threshold.
        whole = len(weights) // _BLOCK * _BLOCK
        tops = np.append(weights[:whole].reshape(-1, _BLOCK).max(axis=1), weights[whole:])
        some = np.flatnonzero(weights >= np.partition(tops, len(tops) - wanted)[len(tops) - wanted])
        if len(some) < len(weights):
            found: Integers = some[best(weights[some], wanted)]
            return found
    threshold = np.partition(weights, len(weights) - wanted)[len(weights) - wanted]
    above = np.flatnonzero(weights > threshold)
    equal = np.flatnonzero(weights == threshold)[: wanted - len(above)]
    some = np.sort(np.concatenate((above, equal)))
    order: Integers = some[np.argsort(-weights[some], kind="stable")]
    return order
