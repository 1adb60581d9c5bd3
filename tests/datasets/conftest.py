"""Random images, and a folder for them."""

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator import datasets
from orchestrator.errors import DatasetError

RESOLUTION = 64


def _draw(seed: int = 0, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A smooth random image: different seeds are different to the eye and to a perceptual hash."""
    content = random.Random(seed).randbytes(360)
    grid = Image.frombytes("RGB", (12, 10), content)
    return grid.resize(size, Image.Resampling.BICUBIC)


class Folder:
    """A folder of images under inspection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, name: str, image: Image.Image | bytes | str, **options: Any) -> Path:
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        if isinstance(image, Image.Image):
            image.save(file, **options)
        else:
            file.write_bytes(image if isinstance(image, bytes) else image.encode())
        return file

    def inspect(self) -> datasets.Dataset:
        """Prepare it and discard what is written: only the findings matter."""
        with tempfile.TemporaryDirectory() as destination:
            return datasets.prepare(self.path, Path(destination), resolution=RESOLUTION)

    def error(self) -> DatasetError:
        with pytest.raises(DatasetError) as caught:
            self.inspect()
        return caught.value

    def problems(self) -> list[str]:
        return [problem.render() for problem in self.error().problems]

    def defects(self) -> list[str]:
        """What the problems are, without what to do about them."""
        return [problem.model_copy(update={"fix": ""}).render() for problem in self.error().problems]

    def warnings(self) -> list[str]:
        """The warnings of files: that a folder holds few images is another one."""
        return [warning.render() for warning in self.inspect().warnings if warning.where != f"{self.path.name}/"]

    def remarks(self) -> list[str]:
        """What the warnings are, without what to do about them."""
        return [warning.split(" (")[0] for warning in self.warnings()]


@pytest.fixture
def draw() -> Callable[..., Image.Image]:
    return _draw


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "photos"
    path.mkdir()
    return Folder(path)
