"""Randomness keyed by what it is for, so that a resumed run needs no saved generator to be bit-equal.

A generator is made from (seed, purpose, numbers such as rank and step) and used once. It lives on the CPU whatever
the device, so the same job draws the same noise everywhere.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import torch


def keyed_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Return a seed, from 0 to 2**63 - 1, that differs for every combination of its arguments.

    It is a hash: a sum would give neighbouring seeds and steps the same random numbers.
    """
    parts = [str(seed), purpose]
    for number in numbers:
        parts.append(str(number))
    key = ":".join(parts).encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    unsigned = int.from_bytes(digest, "big")
    return unsigned >> 1  # 63 bits, which a signed 64-bit integer holds


def generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """Return a new CPU generator for one purpose."""
    random = torch.Generator("cpu")
    return random.manual_seed(keyed_seed(seed, purpose, *numbers))


# A step's samples lie in few epochs, and the next step's mostly in the same ones.
@lru_cache(maxsize=8)
def epoch_order(
    seed: int,
    stream: str,
    epoch: int,
    count: int,
) -> tuple[int, ...]:
    """Return the order in which an epoch visits `count` images."""
    random = generator(seed, f"order of {stream}", epoch)
    order: list[int] = torch.randperm(count, generator=random).tolist()
    return tuple(order)


def image_indices(
    seed: int,
    stream: str,
    start: int,
    length: int,
    count: int,
) -> list[int]:
    """Return which of `count` images the samples `start` to `start + length` of a stream show.

    A stream is an endless run of epochs. Each epoch visits every image once, in an order of its own.
    """
    indices = []
    for sample in range(start, start + length):
        epoch, position = divmod(sample, count)
        order = epoch_order(seed, stream, epoch, count)
        indices.append(order[position])
    return indices


def grouped_indices(
    seed: int,
    stream: str,
    step: int,
    length: int,
    groups: Sequence[Sequence[int]],
) -> list[int]:
    """Return the images that the `length` samples of a step show, all of one group; over time all are visited as often.

    Every step is led by an image, in the order of `image_indices`, and shows images of the leader's group, which is
    visited as `image_indices` visits a stream of its own.
    """
    if len(groups) == 1:
        places = image_indices(seed, stream, step * length, length, len(groups[0]))
        return [groups[0][place] for place in places]
    owners = [number for number, group in enumerate(groups) for _ in group]
    cycle, position = divmod(step, len(owners))
    order = epoch_order(seed, f"groups of {stream}", cycle, len(owners))
    leaders = [owners[place] for place in order[: position + 1]]
    chosen = leaders[-1]
    group = groups[chosen]
    visits = cycle * len(group) + leaders.count(chosen) - 1  # of the group before this step
    places = image_indices(seed, f"{stream}, group {chosen}", visits * length, length, len(group))
    return [group[place] for place in places]
