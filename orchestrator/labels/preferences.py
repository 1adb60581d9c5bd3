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


class Exported(NamedTuple):
    """What was written."""

    pairs: int
    pictures: int


def export_preferences(exchange: Exchange, rounds: Sequence[int], folder: Path) -> Exported:
    """Write the pairs of some rounds, and their pictures, into a new folder.

    A pair is what people have compared, or two images of a prompt with different ratings. Raises JobError when there is
    none, and MachineError when the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise MachineError(f"{folder} is not empty; nothing was written.", next_step="name a new folder")
    pairs = []
    pictures: dict[str, bytes] = {}
    for number in rounds:
        manifest = exchange.manifest(number)
        settlement = exchange.settled(number)
        found = preferences_of(manifest, settlement)
        pairs += found
        for pair in found:
            for file in (pair.chosen, pair.rejected):
                sample = manifest.sample(Path(file).stem)
                if sample is not None and file not in pictures:
                    pictures[file] = exchange.picture(manifest, sample)
    if not pairs:
        message = f"No two images of a prompt in {exchange.place} have different labels, so there are no pairs."
        raise JobError(message, next_step="label more images")
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in pictures.items():
        (folder / file).write_bytes(content)
    lines = [json.dumps(pair.model_dump()) + "\n" for pair in pairs]
    (folder / PREFERENCES_FILE).write_text("".join(lines), encoding="utf-8")
    return Exported(len(pairs), len(pictures))


def preferences_of(manifest: RoundManifest, settlement: Settlement) -> list[Preference]:
    """Return the pairs of a round: those that were compared, and of each prompt those with different ratings.

    A pair of which as many people prefer the one as the other says nothing, and is left out.
    """
    leanings: dict[tuple[str, str], float] = {}
    for first, second in _pairs_of_groups(manifest, settlement):
        difference = settlement.ratings[first].mean - settlement.ratings[second].mean
        leanings[first, second] = difference
    for choice in settlement.choices:
        leanings[choice.first, choice.second] = choice.share - 0.5
    pairs = []
    for (first, second), leaning in leanings.items():
        if leaning == 0:
            continue
        chosen, rejected = (first, second) if leaning > 0 else (second, first)
        samples = [_sample(manifest, chosen), _sample(manifest, rejected)]
        pair = Preference(chosen=samples[0].file, rejected=samples[1].file, prompt=samples[0].prompt)
        pairs.append(pair)
    return pairs


def _pairs_of_groups(manifest: RoundManifest, settlement: Settlement) -> list[tuple[str, str]]:
    """Return all pairs of rated samples of one group, the ids of each in order."""
    groups: dict[int, list[str]] = {}
    for sample in manifest.samples:
        if sample.id in settlement.ratings:
            ids = groups.setdefault(sample.group, [])
            ids.append(sample.id)
    pairs = []
    for ids in groups.values():
        pairs += list(combinations(sorted(ids), 2))
    return pairs


def _sample(manifest: RoundManifest, id_: str) -> RoundSample:
    """Return a sample that a settlement names; those are of its round."""
    sample = manifest.sample(id_)
    if sample is None:
        raise ValueError(f"the round has no sample {id_}")
    return sample
