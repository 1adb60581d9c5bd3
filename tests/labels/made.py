"""Rounds of small pictures, and labels."""

import io
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image

from orchestrator.contract.labels import Label, RoundManifest
from orchestrator.contract.rounds import AskedOfPeople, DrawnSample, write_round

PROMPTS = ("a red bird", "a blue fox")
START = datetime(2026, 11, 1, 12, tzinfo=UTC)


def picture(seed: int) -> bytes:
    """Return a PNG file of one colour."""
    dice = random.Random(seed)
    colour = (dice.randrange(256), dice.randrange(256), dice.randrange(256))
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "PNG")
    return file.getvalue()


def drawn(count: int, prompts: Sequence[str] = PROMPTS) -> list[DrawnSample]:
    """Return `count` samples of each prompt."""
    samples = []
    for group, prompt in enumerate(prompts):
        for number in range(count):
            seed = 1000 * group + number
            samples.append(DrawnSample(picture(seed), prompt, seed, group))
    return samples


def made_round(
    folder: Path, *, job: str = "job", number: int = 0, count: int = 3, prompts: Sequence[str] = PROMPTS
) -> RoundManifest:
    """Write a round into an exchange and return its manifest."""
    return write_round(folder, asked_of_people(job, number), drawn(count, prompts))


def asked_of_people(job: str = "job", number: int = 0, *, people: int = 1) -> AskedOfPeople:
    """Return what a round asks that waits for a year."""
    deadline = START + timedelta(days=365)
    return AskedOfPeople(job, number, f"drawn by {job}", people, deadline)


def label(number: int, *, by: str = "ada", seconds: float = 0.0, **about: Any) -> Label:
    """Return a label whose id is a number."""
    at = START + timedelta(seconds=seconds)
    return Label(id=f"{number:032x}", by=by, at=at, **about)


def file_of(*labels: Label) -> bytes:
    """Return a label file."""
    return "".join(one.line() for one in labels).encode()
