"""Simulated people: they rate by a preference that the job is not told, and err one time in ten."""

import io
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
from PIL import Image

from orchestrator.contract.labels import BEST, WORST, Label, RoundManifest
from orchestrator.labels.exchange import Exchange

HIDDEN = "hidden preference"
ERRORS = 0.1
"""Share of ratings that are given at random."""
LOOK_SECONDS = 0.5


def brightness(image: Image.Image) -> float:
    """Return what these people like: the mean of the luma of an image, from 0 to 1."""
    luma = np.asarray(image.convert("L"), dtype=np.float64)
    return float(luma.mean() / 255)


@contextmanager
def labelling(exchange: Exchange, seed: int) -> Iterator[None]:
    """Have people label every round as soon as it is there, while the block runs."""
    ended = threading.Event()
    dice = random.Random(seed)  # noqa: S311  (people, not secrets)

    def work() -> None:
        done: set[int] = set()
        while not ended.wait(LOOK_SECONDS):
            for number in exchange.rounds():
                if number not in done:
                    rate(exchange, exchange.manifest(number), dice)
                    done.add(number)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def rate(exchange: Exchange, manifest: RoundManifest, dice: random.Random) -> None:
    """Rate the images of a round: the brightest fifth of each prompt 5, the darkest 1, and one in ten at random."""
    groups: dict[int, list[tuple[float, str]]] = {}
    for sample in manifest.samples:
        picture = Image.open(io.BytesIO(exchange.picture(manifest, sample)))
        group = groups.setdefault(sample.group, [])
        group.append((brightness(picture), sample.id))
    lines = ""
    for group in groups.values():
        for place, (_, id_) in enumerate(sorted(group)):
            rating = WORST + place * (BEST - WORST + 1) // len(group)
            if dice.random() < ERRORS:
                rating = dice.randint(WORST, BEST)
            label = Label(id=id_[::-1], by="simulated", at=datetime.now(UTC), sample=id_, rating=rating)
            lines += label.line()
    exchange.put_labels(manifest.round, "simulated.jsonl", lines.encode())
