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
HEIC = Path(__file__).parent / "heic" / "rotated.heic"
MUTANTS = 40  # of each original


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
        (draw(7), "GIF", {"save_all": True, "append_images": [draw(8)]}),
        (draw(8), "TIFF", {"compression": "tiff_lzw", "exif": exif}),
        (draw(9).convert("CMYK"), "TIFF", {}),
        (draw(10), "BMP", {}),
        (draw(11), "AVIF", {}),
    ]
    contents = [HEIC.read_bytes()]
    for image, format_, options in variants:
        buffer = BytesIO()
        image.save(buffer, format_, **options)
        contents.append(buffer.getvalue())
    return contents


def _mutate(data: bytes, chance: random.Random) -> bytes:
    mutant = bytearray(data)
    area = len(mutant)
    if chance.random() < 0.5:  # headers and metadata come first
        area = min(200, area)
    for _ in range(chance.randint(1, 8)):
        position = chance.randrange(area)
        mutant[position] = chance.randrange(256)
    if chance.random() < 0.3:
        end = chance.randrange(len(mutant))
        del mutant[end:]
    if chance.random() < 0.2:
        start = chance.randrange(len(mutant) + 1)
        length = chance.randint(1, 40)
        mutant[start:start] = chance.randbytes(length)
    return bytes(mutant)


@pytest.mark.parametrize("seed", range(12))
def test_mutants_pass_or_are_reported(tmp_path: Path, draw: Draw, seed: int) -> None:
    chance = random.Random(seed)
    original = _originals(draw)[seed]
    folder = tmp_path / "photos"
    folder.mkdir()
    mutants = MUTANTS if seed else MUTANTS // 4  # each HEIC takes a process
    for number in range(mutants):
        mutant = _mutate(original, chance)
        (folder / f"{number:02}.jpg").write_bytes(mutant)
    out = tmp_path / "out"
    with pytest.raises(DatasetError) as caught:
        datasets.prepare(folder, out, resolution=64)
    bad = {problem.where for problem in caught.value.problems}
    assert 0 < len(bad) <= mutants
    for name in bad:
        (folder / name).unlink()
    good = mutants - len(bad)
    if good > 0:
        dataset = datasets.prepare(folder, out, resolution=64)
        assert len(dataset.images) == good
        assert len(list(out.iterdir())) == good
