"""Every defect of a folder of images comes back as one finding that names the file and what to do."""

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageOps

from orchestrator import datasets
from orchestrator.contract.datasets import CAPTIONED_SET
from orchestrator.datasets.similarity import find_duplicates, hash_image
from orchestrator.errors import DatasetError
from orchestrator.resources import ASSETS

Draw = Callable[..., Image.Image]
Folder = Any  # the class in conftest, which pytest offers as a fixture only


def png_bytes(image: Image.Image, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def png_with_header(
    width: int,
    height: int,
    bits: int = 8,
    colour_type: int = 2,
    rows: bytes = b"",
) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        length = struct.pack(">I", len(content))
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return length + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = [
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    ]
    return b"".join(parts)


def test_good_images_of_every_format_come_back_in_order(folder: Folder, draw: Draw) -> None:
    folder.add("c.WEBP", draw(1))
    folder.add("a.JPG", draw(2))
    folder.add("b.png", draw(3, (70, 90)))
    folder.add("no ending", png_bytes(draw(4)))
    dataset = folder.inspect()
    sizes = {str(image.file): (image.width, image.height) for image in dataset.images}
    assert list(sizes.items()) == [
        ("a.JPG", (96, 80)),
        ("b.png", (70, 90)),
        ("c.WEBP", (96, 80)),
        ("no ending", (96, 80)),
    ]
    assert dataset.warnings == ()


def test_size_is_that_of_the_upright_image(folder: Folder, draw: Draw) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    folder.add("a.jpg", draw(size=(96, 80)), exif=exif)
    (image,) = folder.inspect().images
    assert (image.width, image.height) == (80, 96)


def test_all_problems_come_at_once_sorted_by_file(folder: Folder, draw: Draw) -> None:
    folder.add("fine.png", draw())
    folder.add("z.jpg", b"")
    folder.add("b.png", draw(2, (20, 20)))
    folder.add("a.psd", b"8BPS")
    error = folder.error()
    assert [problem.where for problem in error.problems] == ["a.psd", "b.png", "z.jpg"]
    assert error.message == f"3 files in {folder.path} cannot be used."
    assert error.next_step == "fix or remove these files, then submit again"
    assert all(problem.what and problem.fix for problem in error.problems)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "is not an image, despite its extension"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
            "is a git-LFS pointer, not the file itself",
        ),
    ],
)
def test_files_that_only_look_like_images(folder: Folder, content: bytes, expected: str) -> None:
    folder.add("a.JPEG", content)
    (problem,) = folder.problems()
    assert problem.startswith(f"a.JPEG: {expected} (")


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_truncated_images(folder: Folder, draw: Draw, format_: str) -> None:
    buffer = BytesIO()
    draw(size=(200, 200)).save(buffer, format_)
    content = buffer.getvalue()
    half = len(content) // 2
    folder.add("half.img", content[:half])
    folder.add("head.img", content[:16])
    problems = folder.error().problems
    assert [problem.where for problem in problems] == ["half.img", "head.img"]
    for problem in problems:
        assert "truncated" in problem.what or "damaged" in problem.what
        assert "0x" not in problem.what  # a decoder's own message has the address of an object


def test_a_truncated_jpeg_is_reported_with_its_other_problems(folder: Folder, draw: Draw) -> None:
    buffer = BytesIO()
    draw(size=(20, 20)).save(buffer, "JPEG")
    folder.add("a.jpg", buffer.getvalue()[:-40])
    assert folder.defects() == [
        "a.jpg: is 20x20, less than half the resolution of 64",
        "a.jpg: is truncated: its end is missing",
    ]


def test_size_is_refused_in_the_header_before_decoding(folder: Folder) -> None:
    folder.add("a.png", png_with_header(10_001, 10_000))
    folder.add("bomb.png", png_with_header(60_000, 60_000))
    assert folder.defects() == [
        "a.png: has more than 100 megapixels",
        "bomb.png: has more than 100 megapixels",
    ]


def test_a_huge_file_is_refused(folder: Folder, draw: Draw) -> None:
    file = folder.add("a.png", draw())
    os.truncate(file, 101 * 2**20)  # a hole: takes no disk
    assert folder.problems() == ["a.png: is larger than 100 MB (save it smaller)"]


def test_a_phones_jpeg_with_a_second_image_inside_is_a_photo(folder: Folder, draw: Draw) -> None:
    folder.add("a.jpg", draw(1), format="MPO", save_all=True, append_images=[draw(2)])
    assert [str(p.file) for p in folder.inspect().images] == ["a.jpg"]


def test_opaque_alpha_palette_grey_and_bilevel_are_fine(folder: Folder, draw: Draw) -> None:
    for seed, mode in enumerate(["RGBA", "LA", "P", "L", "1"]):
        folder.add(f"{mode}.png", draw(seed).convert(mode))
    assert len(folder.inspect().images) == 5


def test_small_images_are_warned_of_down_to_half(folder: Folder, draw: Draw) -> None:
    folder.add("a.png", draw(1, (32, 90)))
    folder.add("b.png", draw(2, (64, 90)))
    (warning,) = folder.warnings()
    assert warning.startswith("a.png: is 32x90 and will be enlarged to the training resolution of 64")
    folder.add("c.png", draw(3, (31, 90)))
    (problem,) = folder.problems()
    assert problem.startswith("c.png: is 31x90, less than half")


def test_very_long_images_are_warned_of(folder: Folder, draw: Draw) -> None:
    folder.add("a.png", draw(1, (192, 64)))
    folder.add("b.png", draw(2, (64, 193)))
    (warning,) = folder.warnings()
    assert warning.startswith("b.png: is 64x193; most of it is lost")


def test_duplicates_are_found_through_copying_resizing_and_recompressing(folder: Folder, draw: Draw) -> None:
    original = folder.add("a.png", draw(1, (200, 200)))
    folder.add("b.png", original.read_bytes())
    folder.add("c.webp", draw(1, (200, 200)), lossless=True)
    folder.add("d.jpg", draw(1, (200, 200)), quality=40)
    folder.add("e.png", draw(1, (200, 200)).resize((80, 80)))
    for seed in range(2, 30):
        folder.add(f"other-{seed}.png", draw(seed))
    assert folder.remarks() == [
        "b.png: is an exact duplicate of a.png",
        "c.webp: is an exact duplicate of a.png",
        "d.jpg: is nearly the same as a.png",
        "e.png: is nearly the same as a.png",
    ]


def test_equal_shapes_in_other_colours_are_no_duplicates(folder: Folder) -> None:
    for colour in ("red", "blue"):
        image = Image.new("RGB", (64, 64), "white")
        image.paste(colour, (16, 16, 48, 48))
        folder.add(f"{colour}.png", image)
    assert folder.warnings() == []


def test_flat_drawings_of_shapes_in_other_places_are_no_duplicates() -> None:
    """They have few gradients to differ in: those of the packaged layouts, and a shape at either end of a line."""
    images = [Image.open(path).convert("RGB") for path in sorted((ASSETS / "layouts").glob("*.png"))]
    assert len(images) > 40
    for left in (8, 40):
        image = Image.new("RGB", (64, 64), "white")
        image.paste("blue", (left, 24, left + 16, 40))
        images.append(image)
    assert find_duplicates([hash_image(image) for image in images]) == []


def test_remarks_about_the_photos_of_a_subject_are_not_made_of_other_sets(
    folder: Folder, draw: Draw, tmp_path: Path
) -> None:
    folder.add("a.png", draw(1))
    assert "only 1 image" in datasets.prepare(folder.path, tmp_path / "one", resolution=64).warnings[0].what
    style = datasets.prepare(folder.path, tmp_path / "style", resolution=64, fewest=CAPTIONED_SET.fewest)
    assert [warning.what for warning in style.warnings] == [
        "there is only 1 image: the adapter learns them by heart, and draws them whatever the prompt says"
    ]
    other = datasets.prepare(folder.path, tmp_path / "other", resolution=64, fewest=None)
    assert (other.warnings, other.told) == ((), ())


def test_files_that_are_not_images(folder: Folder, draw: Draw) -> None:
    folder.add("a.png", draw())
    for name in (".DS_Store", "._a.png", ".hidden.png", "Thumbs.db", "desktop.ini", "README.md", "LICENSE"):
        folder.add(name, b"anything")
    folder.add("notes.pdf", b"%PDF-1.7")
    assert folder.warnings() == ["notes.pdf: is skipped: neither an image nor a caption (move it out of the folder)"]


def test_links_must_stay_in_the_folder(folder: Folder, draw: Draw, tmp_path: Path) -> None:
    folder.add("a.png", draw(1))
    draw(2).save(tmp_path / "outside.png")
    (folder.path / "inside.png").symlink_to("a.png")
    assert folder.warnings() == ["inside.png: is an exact duplicate of a.png (remove one of the two)"]
    (folder.path / "b.png").symlink_to(tmp_path / "outside.png")
    (folder.path / "c.png").symlink_to("nowhere.png")
    (folder.path / "d.png").symlink_to("d.png")
    (folder.path / "e").symlink_to(tmp_path)
    assert folder.defects() == [
        "b.png: is a link to a file outside the folder",
        "c.png: is a broken link",
        "d.png: is a broken link",
        "e: is a link to a file outside the folder",
    ]


def test_a_pipe_is_not_opened(folder: Folder, draw: Draw) -> None:
    folder.add("a.png", draw())
    os.mkfifo(folder.path / "b.png")
    (warning,) = folder.warnings()
    assert warning.startswith("b.png: is skipped: not a regular file")


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    missing = [tmp_path / "none", tmp_path / "a" / "b"]
    for path in missing:
        with pytest.raises(DatasetError, match=f"There is no folder {path}"):
            datasets.prepare(path, tmp_path / "out", resolution=64)


def test_names_no_file_can_have(tmp_path: Path) -> None:
    impossible = [tmp_path / ("x" * 5000), tmp_path / "a\0b"]
    for path in impossible:
        with pytest.raises(DatasetError, match="cannot be read"):
            datasets.prepare(path, tmp_path / "out", resolution=64)


def test_a_file_instead_of_a_folder(tmp_path: Path, draw: Draw) -> None:
    draw().save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match="is a file, not a folder") as caught:
        datasets.prepare(tmp_path / "a.png", tmp_path / "out", resolution=64)
    assert caught.value.next_step.endswith(f"--images {tmp_path}")


def test_a_folder_without_images(folder: Folder) -> None:
    assert folder.error().message == f"There are no images in {folder.path}."
    folder.add("notes.pdf", b"%PDF-1.7")
    assert [problem.where for problem in folder.error().problems] == ["notes.pdf"]


def test_a_folder_with_images_only_in_sub_folders(folder: Folder, draw: Draw) -> None:
    folder.add("train/a.png", draw(1))
    folder.add("train/b.png", draw(2))
    (folder.path / "empty").mkdir()
    error = folder.error()
    assert "its sub-folders do: train (2)" in error.message
    assert error.next_step.endswith(f"--images {folder.path / 'train'}")
    folder.add("c.png", draw(3))
    assert folder.warnings() == [
        "train/: is a sub-folder; the 2 images in it are skipped (move them up to use them too)"
    ]


def test_more_than_ten_thousand_images(folder: Folder, draw: Draw) -> None:
    first = folder.add("0.png", draw())
    for number in range(1, 10_001):
        os.link(first, folder.path / f"{number}.png")
    assert "holds 10001 images; at most 10000" in folder.error().message


@contextmanager
def without_privileges(folder: Path) -> Iterator[None]:
    """Run the block as the user nobody, who can enter the parents of `folder`: root may read anything."""
    if os.geteuid() != 0:
        yield
        return
    modes = {parent: parent.stat().st_mode for parent in folder.parents}
    try:
        for parent, mode in modes.items():
            parent.chmod(mode | 0o011)
        os.seteuid(65534)
        yield
    finally:
        os.seteuid(0)
        for parent, mode in modes.items():
            parent.chmod(mode)


def test_files_that_may_not_be_read(folder: Folder, draw: Draw) -> None:
    folder.add("a.png", draw()).chmod(0)
    folder.add("a.txt", "a caption").chmod(0)
    with without_privileges(folder.path):
        problems = folder.defects()
    assert problems == [
        "a.png: cannot be read: Permission denied",
        "a.txt: cannot be read: Permission denied",
    ]


@pytest.mark.parametrize("mode", [0, 0o644])  # 0o644: its names can be listed, its files not opened
def test_a_closed_folder(folder: Folder, draw: Draw, mode: int) -> None:
    folder.add("a.png", draw())
    folder.path.chmod(mode)
    with without_privileges(folder.path):
        error = folder.error()
    folder.path.chmod(0o755)
    assert error.message == f"The folder {folder.path} cannot be read: Permission denied."
    assert "chmod" in error.next_step


def test_names_cannot_steer_the_terminal(folder: Folder, draw: Draw) -> None:
    folder.add("\x1b[2J\u202egnp.a.png", b"")
    folder.add("fine\u202f1.png", b"")
    (folder.path / "e\udcff.png").touch()
    (folder.path / "new\nline.png").touch()
    folder.add("ok.png", draw())
    names = [problem.where for problem in folder.error().problems]
    assert names == [r"\x1b[2J\u202egnp.a.png", r"e\udcff.png", "fine\u202f1.png", r"new\nline.png"]


def test_a_name_that_is_not_text_is_taken_all_the_same(
    folder: Folder,
    draw: Draw,
    tmp_path: Path,
) -> None:
    draw().save(folder.path / "e\udcff.png")
    datasets.prepare(folder.path, tmp_path / "out", resolution=64)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00001.png"]


def test_damaged_exif_does_not_cost_the_image(folder: Folder, draw: Draw) -> None:
    folder.add("a.jpg", draw(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    folder.add("b.jpg", draw(1), exif=b"Exif\0\0nonsense")
    assert all("EXIF" in warning for warning in folder.warnings())


def test_a_damaged_colour_profile_is_a_warning(folder: Folder, draw: Draw) -> None:
    folder.add("a.jpg", draw(), icc_profile=b"not a profile")
    (warning,) = folder.warnings()
    assert warning.startswith("a.jpg: has an unusable colour profile")


def test_importing_the_module_loads_no_image_library() -> None:
    code = "import orchestrator.datasets, sys; sys.exit(bool({'PIL', 'numpy', 'torch'} & sys.modules.keys()))"
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True)


@pytest.mark.skipif("ORCHESTRATOR_TEST_DATA" not in os.environ, reason="needs a folder with real photos in dog/")
def test_real_photos_pass_without_a_warning(tmp_path: Path) -> None:
    photos = Path(os.environ["ORCHESTRATOR_TEST_DATA"]) / "dog"
    dataset = datasets.prepare(photos, tmp_path / "out", resolution=512)
    assert len(dataset.images) == 5
    assert dataset.warnings == ()


@pytest.mark.parametrize(("count", "expected"), [(1, "there is only 1 image"), (2, "there are only 2 images"), (3, "")])
def test_too_few_images_are_warned_of(folder: Folder, draw: Draw, count: int, expected: str) -> None:
    for seed in range(count):
        folder.add(f"{seed}.png", draw(seed))
    warnings = [warning.render() for warning in folder.inspect().warnings]
    assert len(warnings) == bool(expected)
    assert all(warning.startswith(f"photos/: {expected}") for warning in warnings)


def _noisy(colour: str, strength: int) -> Image.Image:
    noise = Image.effect_noise((200, 200), strength).convert("RGB")
    return Image.blend(Image.new("RGB", (200, 200), colour), noise, 0.1)


def test_images_without_content_are_warned_of(folder: Folder, draw: Draw) -> None:
    folder.add("black.jpg", Image.new("RGB", (96, 80)))
    folder.add("lens-cap.png", ImageChops.multiply(_noisy("black", 60), Image.new("RGB", (200, 200), "#404040")))
    folder.add("nothing.png", Image.new("RGBA", (97, 80)))
    folder.add("one-colour.gif", Image.new("RGB", (98, 80), "#3070c0"))
    folder.add("white.png", Image.new("L", (99, 80), 255))
    folder.add("thin-line.png", ImageOps.expand(Image.new("L", (92, 76), 255), 2, 200))
    folder.add("fog.jpg", Image.blend(draw(1), Image.new("RGB", (96, 80), "#c0c0c0"), 0.8))
    warnings = [warning for warning in folder.remarks() if "all over" in warning]
    assert warnings == [
        "black.jpg: is black all over, or nearly so: training learns nothing from it",
        "lens-cap.png: is black all over, or nearly so: training learns nothing from it",
        "nothing.png: is white all over, or nearly so: training learns nothing from it",
        "one-colour.gif: is of one colour all over, or nearly so: training learns nothing from it",
        "white.png: is white all over, or nearly so: training learns nothing from it",
    ]


@pytest.mark.parametrize("name", ["a.svg", "a.jxl", "a.jp2", "a.psd", "a.ico", "a.tga", "a.ppm", "a.orf"])
def test_other_image_formats_are_named_with_what_to_do(folder: Folder, name: str) -> None:
    folder.add(name, b"some content")
    (problem,) = folder.problems()
    extension = name.removeprefix("a")
    assert problem == f"{name}: is in a format that is not supported ({extension}) (convert it to PNG or JPEG)"


@pytest.mark.parametrize("content", [b"\0\0\0\x0cJXL ", b"\xff\x0a", b"\0\0\0\x0cjP  ", b"8BPS", b"\x76\x2f\x31\x01"])
def test_other_image_formats_are_known_by_their_content_too(folder: Folder, content: bytes) -> None:
    folder.add("a.jpg", content + bytes(20))
    (problem,) = folder.problems()
    assert "which is not supported (convert it to PNG or JPEG)" in problem


def test_what_systems_leave_behind_is_ignored(folder: Folder, draw: Draw) -> None:
    folder.add("a.PNG", draw())
    names = (".DS_Store", "._a.PNG", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Picasa.ini", "Icon\r")
    for name in names:
        folder.add(name, b"anything")
    folder.add("@eaDir/a.jpg", draw())
    folder.add("__MACOSX/a.jpg", draw())
    assert folder.warnings() == []
