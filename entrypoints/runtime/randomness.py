"""Randomness keyed by what it is for, so that a resumed run needs no saved generator to be bit-equal.

A generator is made from (seed, purpose, numbers such as rank and step) and used once. It lives on the CPU whatever
the device, so the same job draws the same noise everywhere.
"""

import hashlib
from functools import lru_cache

import torch


def keyed_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Return a 63-bit seed that differs for every combination of its arguments."""
    key = ":".join([str(seed), purpose, *map(str, numbers)])
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """Return a fresh CPU generator for one purpose."""
    return torch.Generator("cpu").manual_seed(keyed_seed(seed, purpose, *numbers))


@lru_cache(maxsize=8)
def epoch_order(seed: int, stream: str, epoch: int, count: int) -> tuple[int, ...]:
    """Return the order in which an epoch visits `count` pictures."""
    order: list[int] = torch.randperm(count, generator=generator(seed, f"order of {stream}", epoch)).tolist()
    return tuple(order)


def pictures_at(seed: int, stream: str, start: int, length: int, count: int) -> list[int]:
    """Return which of `count` pictures are the samples `start` to `start + length` of an endless run of epochs."""
    return [
        epoch_order(seed, stream, sample // count, count)[sample % count] for sample in range(start, start + length)
    ]
