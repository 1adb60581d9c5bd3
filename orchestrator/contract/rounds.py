"""Rounds of an exchange that is a folder: how a job leaves them, and reads what people have said."""

import hashlib
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from orchestrator.contract.labels import (
    CLOSED_FILE,
    LABELS_ENDING,
    LABELS_FOLDER,
    PICTURES_FOLDER,
    ROUND_MANIFEST_FILE,
    RoundClosed,
    RoundManifest,
    RoundSample,
    round_folder,
    sample_id,
)
from orchestrator.contract.settlement import Settlement, settle


class DrawnSample(NamedTuple):
    """A picture that people will be asked about."""

    png: bytes
    """Its file."""
    prompt: str
    """What was drawn."""
    seed: int
    """Of its generator."""
    group: int
    """Number of its group."""


def write_round(
    exchange: Path,
    job: str,
    number: int,
    drawn: Sequence[DrawnSample],
    deadline: datetime | None = None,
) -> RoundManifest:
    """Write a round: its pictures, and then its manifest.

    Idempotent: a job that is interrupted and draws the same samples again writes the same files, and the labels that
    were given meanwhile stay, as does the first deadline. `exchange` is the folder of that name in the job's
    checkpoints.
    """
    folder = exchange / round_folder(number)
    pictures = folder / PICTURES_FOLDER
    pictures.mkdir(parents=True, exist_ok=True)
    samples = []
    for index, one in enumerate(drawn):
        sha256 = hashlib.sha256(one.png).hexdigest()
        sample = RoundSample(
            id=sample_id(job, number, index, sha256),
            sha256=sha256,
            prompt=one.prompt,
            seed=one.seed,
            group=one.group,
        )
        _write(pictures / sample.file, one.png)
        samples.append(sample)
    known = _known_round(exchange, number)
    if known is not None and known.samples == tuple(samples):
        return known
    manifest = RoundManifest(job=job, round=number, samples=tuple(samples), deadline=deadline)
    text = manifest.model_dump_json(indent=1)
    _write(folder / ROUND_MANIFEST_FILE, text.encode())
    return manifest


def read_round(exchange: Path, number: int) -> RoundManifest | None:
    """Return the manifest of a round, or None while it has none; raises ValueError for a damaged one."""
    file = exchange / round_folder(number) / ROUND_MANIFEST_FILE
    if not file.is_file():
        return None
    return RoundManifest.model_validate_json(file.read_bytes())


def _known_round(exchange: Path, number: int) -> RoundManifest | None:
    """Return the manifest that an earlier attempt wrote; None for a damaged one, which is written anew."""
    try:
        return read_round(exchange, number)
    except ValueError:
        return None


def read_label_files(exchange: Path, number: int) -> dict[str, bytes]:
    """Return the content of all label files of a round, by their names."""
    folder = exchange / round_folder(number) / LABELS_FOLDER
    files = {}
    for path in sorted(folder.glob(f"*{LABELS_ENDING}")):
        files[path.name] = path.read_bytes()
    return files


def settled(exchange: Path, manifest: RoundManifest) -> Settlement:
    """Return the labels of a round, settled; of a closed round, with the labels that it was closed with."""
    file = exchange / round_folder(manifest.round) / CLOSED_FILE
    closed = None
    if file.is_file():
        data = file.read_bytes()
        closed = RoundClosed.model_validate_json(data)
    files = read_label_files(exchange, manifest.round)
    return settle(manifest, files, closed)


def is_closed(exchange: Path, number: int) -> bool:
    """Whether the labels of a round were chosen already: by training, or by a person who has waited long enough."""
    return (exchange / round_folder(number) / CLOSED_FILE).is_file()


def close_round(exchange: Path, settlement: Settlement) -> None:
    """Note which labels training uses: later ones are late, and a resumed job settles the same.

    Call it before the first step that uses them. A round that is closed already stays as it is.
    """
    file = exchange / round_folder(settlement.round) / CLOSED_FILE
    if not file.exists():
        closed = RoundClosed(round=settlement.round, labels=settlement.used)
        text = closed.model_dump_json()
        _write(file, text.encode())


def _write(path: Path, content: bytes) -> None:
    """Write a file that is complete or absent, also after a loss of power."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
