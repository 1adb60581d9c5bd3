"""From labels to pairs of pictures of which one is preferred: what `rlhf` with dpo learns from."""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from orchestrator.contract.labels import RoundManifest, RoundSample
from orchestrator.contract.preferences import PREFERENCES_FILE, Preference
from orchestrator.contract.settlement import Settlement
from orchestrator.errors import JobError, MachineError
from orchestrator.labels.exchange import Exchange

EVEN = 0.5
"""Share of people that prefers neither of two."""


class Exported(NamedTuple):
    """What was written."""

    pairs: int
    pictures: int


def export_preferences(exchange: Exchange, rounds: Sequence[int], folder: Path) -> Exported:
    """Write the pairs of some rounds, and their pictures, into a new folder.

    A pair is what people have compared, or two images of a prompt with different ratings. Raises JobError when there is
    none, and MachineError when the folder holds something.
    """
    _require_new(folder)
    pairs = []
    pictures: dict[str, bytes] = {}
    for number in rounds:
        manifest = exchange.manifest(number)
        settlement = exchange.settled(number)
        for better, worse in preferred(manifest, settlement):
            pair = Preference(
                chosen=better.file,
                rejected=worse.file,
                prompt=better.prompt,
            )
            pairs.append(pair)
            for sample in (better, worse):
                if sample.file not in pictures:
                    content = exchange.picture(manifest, sample)
                    pictures[sample.file] = content
    if not pairs:
        message = f"No two images of a prompt in {exchange.place} have different labels, so there are no pairs."
        raise JobError(message, next_step="label more images")
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in pictures.items():
        path = folder / file
        path.write_bytes(content)
    lines = ""
    for pair in pairs:
        values = pair.model_dump()
        lines += json.dumps(values) + "\n"
    path = folder / PREFERENCES_FILE
    path.write_text(lines, encoding="utf-8")
    return Exported(len(pairs), len(pictures))


def _require_new(folder: Path) -> None:
    """Raise MachineError unless nothing lies where a folder is to be written."""
    what = ""
    if folder.is_file():
        what = "is a file"
    elif folder.is_dir() and any(folder.iterdir()):
        what = "is not empty"
    if what:
        message = f"{folder} {what}; nothing was written."
        raise MachineError(message, next_step="name a new folder")


def preferred(manifest: RoundManifest, settlement: Settlement) -> list[tuple[RoundSample, RoundSample]]:
    """Return the pairs of a round, the better one first: what was compared, and what was rated differently.

    A pair of which as many people prefer the one as the other says nothing, and is left out.
    """
    leanings: dict[tuple[str, str], float] = {}
    for first, second in _rated_pairs(manifest, settlement):
        of_first = settlement.ratings[first].mean
        of_second = settlement.ratings[second].mean
        leanings[first, second] = of_first - of_second
    for choice in settlement.choices:
        key = (choice.first, choice.second)
        leanings[key] = choice.share - EVEN
    samples = {sample.id: sample for sample in manifest.samples}
    pairs = []
    for (first, second), leaning in leanings.items():
        one = samples[first]
        other = samples[second]
        if leaning > 0:
            pairs.append((one, other))
        elif leaning < 0:
            pairs.append((other, one))
    return pairs


def _rated_pairs(manifest: RoundManifest, settlement: Settlement) -> list[tuple[str, str]]:
    """Return all pairs of rated samples of one group, the ids of each in order."""
    groups: dict[int, list[str]] = {}
    for sample in manifest.samples:
        if sample.id in settlement.ratings:
            ids = groups.setdefault(sample.group, [])
            ids.append(sample.id)
    pairs: list[tuple[str, str]] = []
    for ids in groups.values():
        ids.sort()
        pairs += combinations(ids, 2)
    return pairs
