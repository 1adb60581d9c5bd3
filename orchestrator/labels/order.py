"""What a person is asked, and in which order: fixed for each person, so that a session goes on where it ended."""

import hashlib
from collections.abc import Iterable
from itertools import pairwise

from orchestrator.contract.labels import NEIGHBOURS, RoundManifest

Item = tuple[str, ...]
"""The id of a sample to rate; or the ids of two to choose from, the left one first."""


def rating_items(manifest: RoundManifest, by: str) -> list[Item]:
    """Return every sample, in this person's order.

    People see them in different orders, so that fatigue, and the picture before, do not bias the same samples. The
    order is the same in each session, so that a person goes on at the first sample without a label.
    """
    ids = [sample.id for sample in manifest.samples]
    items: list[Item] = []
    for id_ in _shuffled(ids, by):
        items.append((id_,))
    return items


def choice_items(manifest: RoundManifest, by: str) -> list[Item]:
    """Return pairs of samples of the same prompt, in this person's order.

    The pairs are the same for all people, so that their choices can be compared; which one is on the left is not. The
    samples of a prompt form a ring in which each is compared with both neighbours: as many pairs as samples, and from
    each sample a way of comparisons to every other one.
    """
    by_prompt: dict[str, list[str]] = {}
    for sample in manifest.samples:
        ids = by_prompt.setdefault(sample.prompt, [])
        ids.append(sample.id)
    items: list[Item] = []
    for ids in by_prompt.values():
        ring = _shuffled(ids, manifest.job)
        for pair in _neighbours(ring):
            left, right = _shuffled(pair, by)
            items.append((left, right))
    return sorted(items, key=lambda item: _hashed(by, *sorted(item)))


def _neighbours(ring: list[str]) -> list[Item]:
    """Return each with the next one, the last with the first; two are one pair, and one is none."""
    pairs: list[Item] = list(pairwise(ring))
    if len(ring) > NEIGHBOURS:
        closing = (ring[-1], ring[0])
        pairs.append(closing)
    return pairs


def _shuffled(ids: Iterable[str], key: str) -> list[str]:
    """Return ids in an order that depends on nothing but them and a key.

    Sorting by a hash needs no random generator, whose algorithm may change, and gives each id a place that does not
    depend on which others there are.
    """
    return sorted(ids, key=lambda id_: _hashed(key, id_))


def _hashed(*parts: str) -> str:
    text = "\n".join(parts)
    return hashlib.sha256(text.encode()).hexdigest()
