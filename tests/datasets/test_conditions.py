"""Condition pictures beside the images: each image has one of its own name and shape."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator import datasets
from orchestrator.contract.digest import hash_files
from orchestrator.errors import DatasetError

Draw = Callable[..., Image.Image]
Folder = Any  # the class in conftest, which pytest offers as a fixture only
RESOLUTION = 64


@pytest.fixture
def pairs(folder: Folder, draw: Draw) -> Folder:
    """A folder with a.jpg and b.png, and a condition for each."""
    folder.add("a.jpg", draw(1), exif=_place())
    folder.add("b.png", draw(2, (64, 128)))
    folder.add("conditions/a.png", draw(3))
    folder.add("conditions/b.PNG", draw(4, (128, 256)))  # larger, and of the same shape
    return folder


def _place() -> Image.Exif:
    exif = Image.Exif()
    exif[0x13B] = "the artist"
    return exif


def prepare(folder: Folder, destination: Path) -> datasets.Dataset:
    return datasets.prepare(folder.path, destination, resolution=RESOLUTION, with_conditions=True)


def problems(folder: Folder, destination: Path) -> list[str]:
    with pytest.raises(DatasetError) as caught:
        prepare(folder, destination)
    assert not any(destination.iterdir())
    return [problem.render() for problem in caught.value.problems]


def test_each_condition_gets_the_number_of_its_image(pairs: Folder, tmp_path: Path) -> None:
    found = prepare(pairs, tmp_path / "data")
    assert [str(image.condition) for image in found.images] == ["conditions/a.png", "conditions/b.PNG"]
    assert set(hash_files(tmp_path / "data")) == {
        "00001.jpg",
        "00002.png",
        "conditions/00001.png",
        "conditions/00002.png",
    }
    assert not [warning for warning in found.warnings if warning.where != f"{pairs.path.name}/"]
    with Image.open(tmp_path / "data" / "conditions" / "00001.png") as condition:
        assert condition.size == (96, 80)


def test_conditions_are_stripped_of_what_they_say_beside_their_pixels(
    pairs: Folder, draw: Draw, tmp_path: Path
) -> None:
    (pairs.path / "conditions" / "a.png").unlink()
    pairs.add("conditions/a.jpg", draw(3), exif=_place())
    prepare(pairs, tmp_path / "data")
    assert b"the artist" not in (tmp_path / "data" / "conditions" / "00001.jpg").read_bytes()


def test_without_conditions_their_folder_is_skipped_with_a_warning(pairs: Folder) -> None:
    assert pairs.remarks() == ["conditions/: is a sub-folder; the 2 images in it are skipped"]


def test_images_without_a_condition_are_all_named(pairs: Folder, draw: Draw, tmp_path: Path) -> None:
    pairs.add("c.png", draw(5))
    pairs.add("d.png", draw(6))
    found = problems(pairs, tmp_path / "data")
    assert [problem.partition(":")[0] for problem in found] == ["c.png", "d.png"]
    assert "there is no conditions/c.png" in found[0]


def test_a_condition_of_another_shape_is_refused(pairs: Folder, draw: Draw, tmp_path: Path) -> None:
    pairs.add("conditions/a.png", draw(3, (80, 96)))
    (found,) = problems(pairs, tmp_path / "data")
    assert "conditions/a.png: is 80x96, which is not the shape of its picture (96x80)" in found


@pytest.mark.parametrize("size", [(96, 80), (97, 80), (95, 80), (192, 161), (480, 400)])
def test_sizes_that_differ_by_rounding_are_of_one_shape(
    pairs: Folder, draw: Draw, size: tuple[int, int], tmp_path: Path
) -> None:
    pairs.add("conditions/a.png", draw(3, size))
    prepare(pairs, tmp_path / "data")


def test_remarks_meant_for_photos_are_not_made_of_conditions(folder: Folder, draw: Draw, tmp_path: Path) -> None:
    """Maps are flat, alike, black or white, and of any size by nature; what they say as files is still said."""
    for number, colour in enumerate(("black", "white", "black")):
        folder.add(f"{number}.png", draw(number + 1, (80, 80)))
        folder.add(f"conditions/{number}.png", Image.new("RGB", (40, 40), colour))
    assert prepare(folder, tmp_path / "flat").warnings == ()
    first, second = Image.new("RGB", (40, 40)), Image.new("RGB", (40, 40), "white")
    folder.add("conditions/2.gif", first, save_all=True, append_images=[second])
    (folder.path / "conditions" / "2.png").unlink()
    (warning,) = prepare(folder, tmp_path / "animated").warnings
    assert warning.render().startswith("conditions/2.gif: is animated; its first frame is used")


def test_several_conditions_of_one_image_and_several_images_of_one_are_refused(
    pairs: Folder, draw: Draw, tmp_path: Path
) -> None:
    pairs.add("conditions/a.webp", draw(3))
    pairs.add("b.webp", draw(7, (64, 128)))
    found = problems(pairs, tmp_path / "data")
    assert "a.jpg: has 2 conditions: a.png and a.webp (keep one of them)" in found
    assert any(problem.startswith("b.webp: has the name of b.png, whose condition") for problem in found)


def test_a_condition_without_an_image_is_told(pairs: Folder, draw: Draw, tmp_path: Path) -> None:
    pairs.add("conditions/z.png", draw(3))
    found = [warning.render() for warning in prepare(pairs, tmp_path / "data").warnings]
    assert any("1 condition without an image of the same name: z.png" in warning for warning in found)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_a_condition_that_is_no_image_is_named_with_its_folder(pairs: Folder, content: bytes, tmp_path: Path) -> None:
    pairs.add("conditions/a.png", content)
    (found,) = problems(pairs, tmp_path / "data")
    assert found.startswith("conditions/a.png: ")


def test_a_link_out_of_the_folder_is_refused(pairs: Folder, draw: Draw, tmp_path: Path) -> None:
    draw(3).save(tmp_path / "elsewhere.png")
    condition = pairs.path / "conditions" / "a.png"
    condition.unlink()
    condition.symlink_to(tmp_path / "elsewhere.png")
    (found,) = problems(pairs, tmp_path / "data")
    assert found.startswith("conditions/a.png: is a link to a file outside the folder")


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_conditions_says_how_to_go_on(
    folder: Folder, draw: Draw, exists: bool, tmp_path: Path
) -> None:
    folder.add("a.png", draw(1))
    if exists:
        (folder.path / "conditions").mkdir()
    with pytest.raises(DatasetError, match="conditions") as caught:
        prepare(folder, tmp_path / "data")
    assert 'conditions=["canny"]' in caught.value.next_step
