"""Variants timed in turns, so that whatever else the machine does falls on all of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

Seconds = Mapping[str, Sequence[float]]
"""Of each round, by variant."""


def in_turns(variants: Mapping[str, Callable[[int], Any]], rounds: int, warm_up: int = 1) -> Seconds:
    """Call each variant with the number of the round, in turns; the first rounds are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(warm_up + rounds):
        for name, variant in variants.items():
            began = time.perf_counter()
            variant(number)
            passed = time.perf_counter() - began
            if number >= warm_up:
                seconds[name].append(passed)
    return seconds


def ratio(seconds: Seconds, one: str, other: str) -> float:
    """Return the median of one variant over that of another."""
    return median(seconds[one]) / median(seconds[other])


def medians(seconds: Seconds, per: int = 1) -> str:
    """Return the medians in words; `per` is by how many each is divided."""
    parts = []
    for name, values in seconds.items():
        parts.append(f"{name} {1000 * median(values) / per:.3g} ms")
    return ", ".join(parts)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all values does not exceed; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = min(len(ordered) - 1, int(share * len(ordered)))
    return ordered[place]
