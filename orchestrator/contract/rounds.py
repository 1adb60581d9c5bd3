"""Rounds of an exchange that is a folder: how a job leaves them, and reads what people have said."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
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


class AskedOfPeople(NamedTuple):
    """What a round asks of people."""

    job: str
    """Name of the job."""
    number: int
    """Of the round, from 0."""
    drawn_by: str
    """Hash of all that its pictures follow from."""
    people: int
    """How many have to judge each picture."""
    deadline: datetime
    """After it the job goes on with the labels that there are."""


def known_round(exchange: Path, asked: AskedOfPeople, count: int) -> RoundManifest | None:
    """Return the round as an earlier attempt has written it; None when there is none, or it shows other pictures.

    Its pictures stay as they are: decoded and encoded once more, by another version of a library or another machine,
    they could differ in a bit, and the labels that were given meanwhile would be of unknown pictures.
    """
    try:
        known = read_round(exchange, asked.number)
    except ValueError:  # damaged: it is written anew
        return None
    if known is None or (known.job, known.drawn_by) != (asked.job, asked.drawn_by):
        return None
    return known if len(known.samples) == count else None


def write_round(exchange: Path, asked: AskedOfPeople, drawn: Sequence[DrawnSample]) -> RoundManifest:
    """Write a round: its pictures, and then its manifest, unless it is known.

    Idempotent: a job that is interrupted finds its round, and the labels that were given meanwhile stay, as does the
    first deadline. Of other pictures under the same number it is another round: what that was closed with is set aside.
    `exchange` is the folder of that name in the job's checkpoints.
    """
    known = known_round(exchange, asked, len(drawn))
    if known is not None:
        return known
    folder = exchange / round_folder(asked.number)
    pictures = folder / PICTURES_FOLDER
    pictures.mkdir(parents=True, exist_ok=True)
    samples = []
    for index, one in enumerate(drawn):
        sha256 = hashlib.sha256(one.png).hexdigest()
        sample = RoundSample(
            id=sample_id(asked.job, asked.number, index, sha256),
            sha256=sha256,
            prompt=one.prompt,
            seed=one.seed,
            group=one.group,
        )
        _write(pictures / sample.file, one.png)
        samples.append(sample)
    manifest = RoundManifest(
        job=asked.job,
        round=asked.number,
        samples=tuple(samples),
        drawn_by=asked.drawn_by,
        people=asked.people,
        deadline=asked.deadline,
    )
    closed = folder / CLOSED_FILE
    if closed.is_file():
        closed.replace(folder / f"earlier-{CLOSED_FILE}")
    text = manifest.model_dump_json(indent=1)
    _write(folder / ROUND_MANIFEST_FILE, text.encode())
    return manifest


def read_round(exchange: Path, number: int) -> RoundManifest | None:
    """Return the manifest of a round, or None while it has none; raises ValueError for a damaged one."""
    file = exchange / round_folder(number) / ROUND_MANIFEST_FILE
    if not file.is_file():
        return None
    return RoundManifest.model_validate_json(file.read_bytes())


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


def close_round(exchange: Path, manifest: RoundManifest, settlement: Settlement) -> Settlement:
    """Note which labels training uses, and return the settlement of these: later ones are late.

    Call it before the first step that uses them. A round that is closed already, by an earlier attempt or by a person
    in the same moment, stays as it is, and its labels are the ones that are used.

    Args:
        exchange: The folder of that name in the job's checkpoints.
        manifest: The round.
        settlement: What is known of it now.
    """
    file = exchange / round_folder(settlement.round) / CLOSED_FILE
    closed = RoundClosed(round=settlement.round, labels=settlement.used)
    text = closed.model_dump_json()
    draft = _draft(file, text.encode())
    with suppress(FileExistsError):
        os.link(draft, file)  # unlike a rename, it replaces nothing
    draft.unlink()
    return settled(exchange, manifest)


def _write(path: Path, content: bytes) -> None:
    """Write a file that is complete or absent, also after a loss of power."""
    _draft(path, content).replace(path)


def _draft(path: Path, content: bytes) -> Path:
    """Write what is to become a file beside it, and return where."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft
