"""Photos that training does not get as they are, and a count of how often each is decoded."""

import hashlib
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def turned_photos(tmp_path: Path) -> Path:
    """Two photos by a camera held upright, which have to be turned and written anew."""
    folder = tmp_path / "turned"
    folder.mkdir()
    for name, colour in (("one", "red"), ("two", "blue")):
        picture = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
        picture.paste(colour, (0, 0, 40, 40))
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(folder / f"{name}.jpg", exif=exif)
    return folder


@pytest.fixture
def decodes(turned_photos: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often this process opens each of the photos to decode it."""
    names = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in turned_photos.iterdir()}
    counts: Counter[str] = Counter()
    opened = Image.open

    def counting(file: Any, *arguments: Any, **options: Any) -> Image.Image:
        content = file.getvalue() if isinstance(file, BytesIO) else Path(file).read_bytes()
        counts[names.get(hashlib.sha256(content).hexdigest(), "another picture")] += 1
        return opened(file, *arguments, **options)

    monkeypatch.setattr(Image, "open", counting)
    return counts
