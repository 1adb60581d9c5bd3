"""Damaged files of all kinds are findings, never tracebacks."""

import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator import datasets
from orchestrator.errors import DatasetError

Draw = Callable[..., Image.Image]
MUTANTS = 60  # of each original


def _originals(draw: Draw) -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    variants: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (draw(1), "PNG", {"exif": exif}),
        (draw(2).quantize(8), "PNG", {"transparency": 0}),
        (draw(3), "JPEG", {"exif": exif, "comment": b"x"}),
        (draw(4), "JPEG", {"progressive": True}),
        (draw(5), "WEBP", {"exif": exif}),
        (draw(6), "MPO", {"save_all": True, "append_images": [draw(7)]}),
    ]
    buffers = []
    for picture, format_, options in variants:
        buffers.append(BytesIO())
        picture.save(buffers[-1], format_, **options)
    return [buffer.getvalue() for buffer in buffers]


def _mutate(data: bytes, chance: random.Random) -> bytes:
    mutant = bytearray(data)
    area = 200 if chance.random() < 0.5 else len(mutant)  # headers and metadata come first
    for _ in range(chance.randint(1, 8)):
        mutant[chance.randrange(min(area, len(mutant)))] = chance.randrange(256)
    if chance.random() < 0.3:
        del mutant[chance.randrange(len(mutant)) :]
    if chance.random() < 0.2:
        start = chance.randrange(len(mutant) + 1)
        mutant[start:start] = chance.randbytes(chance.randint(1, 40))
    return bytes(mutant)


@pytest.mark.parametrize("seed", range(6))
def test_mutants_pass_or_are_reported(tmp_path: Path, draw: Draw, seed: int) -> None:
    chance = random.Random(seed)
    original = _originals(draw)[seed]
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(MUTANTS):
        (folder / f"{number:02}.jpg").write_bytes(_mutate(original, chance))
    with pytest.raises(DatasetError) as caught:
        datasets.prepare(folder, tmp_path / "out", resolution=64)
    bad = {problem.where for problem in caught.value.problems}
    assert 0 < len(bad) <= MUTANTS
    for name in bad:
        (folder / name).unlink()
    if len(bad) < MUTANTS:
        dataset = datasets.prepare(folder, tmp_path / "out", resolution=64)
        assert len(list((tmp_path / "out").iterdir())) == len(dataset.images) == MUTANTS - len(bad)
