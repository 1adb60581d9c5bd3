"""Masks beside images, or in their transparency, and everything that can be wrong with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator import datasets
from orchestrator.errors import DatasetError

Draw = Callable[..., Image.Image]
Folder = Any  # the class in conftest, which pytest offers as a fixture only
SIZE = (96, 80)


def mask(left: int = 0, size: tuple[int, int] = SIZE, mode: str = "L") -> Image.Image:
    """Return a mask that is white to the right of a column."""
    drawn = Image.new("L", size, 0)
    drawn.paste(255, (left, 0, *size))
    return drawn.convert(mode)


@pytest.fixture
def pair(folder: Folder, draw: Draw) -> Folder:
    """A folder with a.jpg and b.png, each with its mask."""
    folder.add("a.jpg", draw(1))
    folder.add("b.png", draw(2))
    folder.add("a-masklabel.png", mask(48))
    folder.add("b-MaskLabel.jpg", mask(24))
    return folder


def prepared(folder: Folder, destination: Path) -> dict[str, Image.Image]:
    datasets.prepare(folder.path, destination, resolution=64, masked=True)
    files = {}
    for path in sorted(destination.iterdir()):
        with Image.open(path) as opened:
            files[path.name] = opened.copy()
    return files


def problems(folder: Folder, destination: Path) -> list[str]:
    with pytest.raises(DatasetError) as caught:
        datasets.prepare(folder.path, destination, resolution=64, masked=True)
    return [problem.render() for problem in caught.value.problems]


def test_each_image_gets_its_mask_in_grey_and_of_its_size(pair: Folder, tmp_path: Path) -> None:
    pair.add("a-masklabel.png", mask(24, (48, 40), "1"))  # half the size of its image
    files = prepared(pair, tmp_path / "out")
    assert list(files) == ["00001-masklabel.png", "00001.jpg", "00002-masklabel.png", "00002.png"]
    for name in ("00001-masklabel.png", "00002-masklabel.png"):
        assert (files[name].mode, files[name].size) == ("L", SIZE)
    assert [files["00001-masklabel.png"].getpixel((x, 40)) for x in (20, 80)] == [0, 255]


def test_the_transparency_of_an_image_is_its_mask_and_turns_with_it(folder: Folder, draw: Draw, tmp_path: Path) -> None:
    cut_out = draw(1)
    cut_out.putalpha(mask(48))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    folder.add("a.png", cut_out, exif=exif)
    files = prepared(folder, tmp_path / "out")
    assert [files["00001-masklabel.png"].getpixel((x, 40)) for x in (20, 80)] == [255, 0]


def test_white_on_nothing_is_a_mask_too(pair: Folder, tmp_path: Path) -> None:
    white = Image.new("RGB", SIZE, "white")
    white.putalpha(mask(48))
    pair.add("a-masklabel.png", white)
    files = prepared(pair, tmp_path / "out")
    assert [files["00001-masklabel.png"].getpixel((x, 40)) for x in (20, 80)] == [0, 255]


def test_images_without_masks_are_told_together(pair: Folder, draw: Draw, tmp_path: Path) -> None:
    pair.add("c.png", draw(3))
    pair.add("d.png", draw(4))
    (found,) = problems(pair, tmp_path / "out")
    assert found.startswith("c.png: 2 of 4 images have no mask: c.png, d.png (put it beside the image, as c-masklabel")


def test_a_mask_of_another_shape_is_told_with_both_sizes(pair: Folder, tmp_path: Path) -> None:
    pair.add("b-MaskLabel.jpg", mask(24, (80, 96)))
    (found,) = problems(pair, tmp_path / "out")
    assert found == "b-MaskLabel.jpg: is 80x96, and its image b.png 96x80 (save the mask in the shape of its image)"


@pytest.mark.parametrize("level", [0, 1])
def test_a_mask_that_leaves_nothing_to_learn_is_told(pair: Folder, tmp_path: Path, level: int) -> None:
    pair.add("a-masklabel.png", Image.new("L", SIZE, level))
    (found,) = problems(pair, tmp_path / "out")
    assert found.startswith(f"a-masklabel.png: leaves nothing to learn: its brightest point is {level} of 255")


def test_a_damaged_mask_is_told_by_its_own_name(pair: Folder, tmp_path: Path) -> None:
    file = pair.path / "a-masklabel.png"
    file.write_bytes(file.read_bytes()[:60])
    (found,) = problems(pair, tmp_path / "out")
    assert found.startswith("a-masklabel.png: is truncated")


@pytest.mark.parametrize("second", ["a-masklabel.jpg", "a-MASKLABEL.png", "a-MaskLabel.webp"])
def test_several_masks_of_one_image_are_refused_and_none_is_picked(pair: Folder, tmp_path: Path, second: str) -> None:
    pair.add(second, mask(10))
    (found,) = problems(pair, tmp_path / "out")
    listed = " and ".join(sorted([second, "a-masklabel.png"]))
    assert found == f"a.jpg: has 2 masks: {listed} (keep one of them)"


def test_several_images_of_one_mask_are_refused(pair: Folder, draw: Draw, tmp_path: Path) -> None:
    pair.add("a.webp", draw(5))
    (found,) = problems(pair, tmp_path / "out")
    assert found == "a.webp: has the name of a.jpg, whose mask it would share (rename one of them)"


def test_a_mask_without_an_image_is_skipped_with_a_warning(pair: Folder, tmp_path: Path) -> None:
    pair.add("z-masklabel.png", mask())
    dataset = datasets.prepare(pair.path, tmp_path / "out", resolution=64, masked=True)
    assert "z-masklabel.png: is skipped: no image has this name" in dataset.warnings[-1].render()


def test_masks_are_never_trained_on_as_images_and_one_is_told_how_to_use_them(pair: Folder) -> None:
    assert [str(image.file) for image in pair.inspect().images] == ["a.jpg", "b.png"]
    (warning,) = pair.warnings()
    assert warning.startswith("a-masklabel.png: is a mask, which this job does not read; so is 1 other")
    assert "-s masked_loss=true" in warning


def test_a_folder_of_masks_is_told_where_they_belong(folder: Folder, draw: Draw) -> None:
    folder.add("a.png", draw(1))
    folder.add("masks/a.png", mask())
    (warning,) = folder.warnings()
    assert "put the mask of each image beside it, as NAME-masklabel.png" in warning
