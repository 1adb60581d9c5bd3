"""What training gets: the same image, upright, in sRGB, and nothing else."""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from orchestrator import datasets
from orchestrator.contract.digest import hash_files
from orchestrator.datasets.decoding import Decoded, decode
from orchestrator.datasets.metadata import carries_metadata
from orchestrator.errors import DatasetError, MachineError

Draw = Callable[..., Image.Image]
Folder = Any  # the class in conftest, which pytest offers as a fixture only
SECRETS = [b"Exif", b"GPS", b"N52-secret", b"xmp", b"xpacket", b"Photoshop", b"JFIF-comment", b"thumbnail"]


def prepared(folder: Folder, destination: Path) -> dict[str, bytes]:
    datasets.prepare(folder.path, destination, resolution=64)
    return {path.name: path.read_bytes() for path in sorted(destination.iterdir())}


def pixels(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def with_position(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "N52-secret camera"
    gps = exif.get_ifd(0x8825)
    gps[1] = "N"
    gps[2] = (52.0, 31.0, 12.0)
    gps[29] = "N52-secret"
    return exif


def test_position_and_all_other_metadata_are_gone(
    folder: Folder,
    draw: Draw,
    tmp_path: Path,
) -> None:
    xmp = b"<?xpacket begin='' id='N52-secret'?><x:xmpmeta xmlns:x='adobe:ns:meta/'/><?xpacket end='w'?>"
    text = PngInfo()
    text.add_text("Comment", "N52-secret")
    text.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
    folder.add("a.jpg", draw(1), exif=with_position(), xmp=xmp, comment=b"N52-secret")
    folder.add("b.webp", draw(2), exif=with_position(), xmp=xmp)
    folder.add("c.png", draw(3), exif=with_position(), pnginfo=text)
    for original in folder.path.iterdir():
        assert b"N52-secret" in original.read_bytes()
    files = prepared(folder, tmp_path / "out")
    assert list(files) == ["00001.png", "00002.png", "00003.png"]
    for data in files.values():
        for secret in SECRETS:
            assert secret not in data
        assert not pixels(data).info
        assert not carries_metadata(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_come_out_upright(
    folder: Folder,
    draw: Draw,
    tmp_path: Path,
    orientation: int,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    original = folder.add("a.png", draw(), exif=exif)
    expected = ImageOps.exif_transpose(Image.open(original))
    result = pixels(prepared(folder, tmp_path / "out")["00001.png"])
    assert (result.size, result.tobytes()) == (expected.size, expected.tobytes())


@pytest.mark.parametrize(
    ("name", "ending"), [("a.png", "png"), ("a.jpg", "jpg"), ("a.jpeg", "jpg"), ("a.webp", "webp")]
)
def test_a_file_of_nothing_but_pixels_is_copied(
    folder: Folder, draw: Draw, tmp_path: Path, name: str, ending: str
) -> None:
    original = folder.add(name, draw())
    assert prepared(folder, tmp_path / "out") == {f"00001.{ending}": original.read_bytes()}


def test_progressive_and_optimised_files_are_copied_too(
    folder: Folder,
    draw: Draw,
    tmp_path: Path,
) -> None:
    folder.add("a.jpg", draw(1), progressive=True, restart_marker_blocks=3)
    folder.add("b.webp", draw(2), lossless=True)
    assert list(prepared(folder, tmp_path / "out")) == ["00001.jpg", "00002.webp"]


def png_chunk(kind: bytes, content: bytes = b"N52-secret") -> bytes:
    length = struct.pack(">I", len(content))
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return length + kind + content + checksum


@pytest.mark.parametrize(
    ("format_", "position", "addition"),
    [
        ("PNG", None, b"N52-secret"),
        ("JPEG", None, b"N52-secret"),
        ("WEBP", None, b"N52-secret"),
        ("PNG", None, png_chunk(b"IDAT")),  # after the end, where nobody looks for pixels
        ("PNG", 33, png_chunk(b"tIME")),  # 33: after the header chunk
        ("PNG", 33, png_chunk(b"prVt")),
        ("JPEG", 2, b"\xff\xed\x00\x0cN52-secret"),  # APP13: IPTC
        ("JPEG", 2, b"\xff\xe0\x00\x0cN52-secret"),  # an APP0 that is not JFIF
    ],
)
def test_what_no_decoder_reports_is_gone_too(
    folder: Folder, draw: Draw, tmp_path: Path, format_: str, position: int | None, addition: bytes
) -> None:
    buffer = BytesIO()
    draw().save(buffer, format_)
    data = buffer.getvalue()
    if position is None:
        position = len(data)
    before, after = data[:position], data[position:]
    folder.add("a.img", before + addition + after)
    (result,) = prepared(folder, tmp_path / "out").values()
    assert b"N52-secret" not in result
    assert not carries_metadata(result)
    assert pixels(result).tobytes() == pixels(data).tobytes()


def test_every_mode_becomes_rgb(folder: Folder, draw: Draw, tmp_path: Path) -> None:
    for seed, mode in enumerate(["1", "L", "LA", "P", "RGBA"]):
        folder.add(f"{mode}.png", draw(seed).convert(mode))
    originals = sorted(folder.path.iterdir())
    files = prepared(folder, tmp_path / "out")
    for path, data in zip(originals, files.values(), strict=True):
        original = Image.open(path).convert("RGB")
        result = pixels(data)
        assert result.mode == "RGB"
        assert result.tobytes() == original.tobytes()


def test_lossy_images_keep_their_pixels(folder: Folder, draw: Draw, tmp_path: Path) -> None:
    original = folder.add("a.webp", draw(), exif=with_position(1))
    result = pixels(prepared(folder, tmp_path / "out")["00001.png"])
    assert result.tobytes() == Image.open(original).tobytes()


def test_a_jpeg_is_copied_without_its_metadata(folder: Folder, draw: Draw, tmp_path: Path) -> None:
    bare = folder.add("bare.jpg", draw(1), progressive=True).read_bytes()
    folder.add("a.jpg", draw(1), progressive=True, exif=with_position(1), xmp=b"N52-secret", comment=b"N52-secret")
    assert prepared(folder, tmp_path / "out") == {"00001.jpg": bare, "00002.jpg": bare}


def test_of_several_images_in_a_jpeg_the_first_is_taken(
    folder: Folder,
    draw: Draw,
    tmp_path: Path,
) -> None:
    several = folder.add("a.jpg", draw(1), format="MPO", save_all=True, append_images=[draw(2)]).read_bytes()
    result = prepared(folder, tmp_path / "out")["00001.jpg"]
    assert result.count(b"\xff\xd8\xff") == 1
    assert pixels(result).tobytes() == pixels(several).tobytes()


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def test_a_colour_profile_is_applied_and_dropped(folder: Folder, tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tmp_")  # red and green
    swapped = swapped.replace(b"gXYZ", b"rXYZ")
    swapped = swapped.replace(b"tmp_", b"gXYZ")
    folder.add("equal.png", plain((200, 80, 30)), icc_profile=srgb)
    folder.add("swapped.png", plain((200, 80, 30)), icc_profile=swapped)
    folder.add("unfit.png", plain((20, 80, 30)), icc_profile=lab.tobytes())
    folder.add("photo.jpg", plain((200, 80, 40)), icc_profile=swapped, quality=100)
    files = prepared(folder, tmp_path / "out")
    assert not any(pixels(data).info for data in files.values())
    assert _distance(files["00001.png"], (200, 80, 30)) <= 2
    assert _distance(files["00003.png"], (80, 200, 30)) <= 3
    assert _distance(files["00004.png"], (20, 80, 30)) == 0
    assert _distance(files["00002.png"], (80, 200, 40)) <= 3


def linear_grey_profile() -> bytes:
    """The smallest ICC profile for a grey image: a white point, and a tone curve of gamma 1."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    table = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, 12)
    header = struct.pack(">I4sI4s4s4s12x4s", 188, b"none", 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp")
    illuminant = struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(68, b"\0") + illuminant.ljust(60, b"\0") + table + white + curve


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_image_may_have_a_profile_of_either_kind(
    folder: Folder,
    tmp_path: Path,
    mode: str,
) -> None:
    grey = Image.new("L", (64, 64), 64).convert(mode)
    folder.add("linear.png", grey, icc_profile=linear_grey_profile())
    folder.add("rgb.png", grey, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert not [warning for warning in folder.warnings() if "profile" in warning]
    files = prepared(folder, tmp_path / "out")
    assert _distance(files["00001.png"], (137, 137, 137)) <= 2  # IEC 61966-2-1: 64/255 in linear light
    assert _distance(files["00002.png"], (64, 64, 64)) <= 1


def _distance(data: bytes, colour: tuple[int, int, int]) -> int:
    """Return the largest difference of a channel of a plain image from a colour."""
    found = pixels(data).getpixel((5, 5))
    assert isinstance(found, tuple)
    channels = zip(found, colour, strict=True)
    return max(abs(int(mine) - theirs) for mine, theirs in channels)


def test_large_photos_are_scaled_to_four_training_resolutions(
    folder: Folder,
    draw: Draw,
    tmp_path: Path,
) -> None:
    folder.add("a.jpg", draw(1, (1024, 512)))
    folder.add("b.jpg", draw(2, (512, 256)))
    files = prepared(folder, tmp_path / "out")
    for name in ("00001.png", "00002.jpg"):
        assert pixels(files[name]).size == (512, 256)


def test_names_stay_here_and_the_order_stays(folder: Folder, draw: Draw, tmp_path: Path) -> None:
    folder.add("A.png", draw(1))
    folder.add("a.jpg", draw(2), exif=with_position())  # makes it a PNG
    folder.add("a.png", draw(3))
    folder.add("a.txt", "of both")
    folder.add("A.txt", "of the other")
    folder.add("wrong.jpg", draw(4), format="PNG")
    files = prepared(folder, tmp_path / "out")
    assert list(files) == ["00001.png", "00002.png", "00003.png", "00004.png", "metadata.jsonl"]
    lines = [json.loads(line) for line in files["metadata.jsonl"].decode().splitlines()]
    assert lines == [
        {"file_name": "00001.png", "text": "of the other"},
        {"file_name": "00002.png", "text": "of both"},
        {"file_name": "00003.png", "text": "of both"},
    ]


def test_the_result_passes_inspection_with_the_same_captions(
    folder: Folder,
    draw: Draw,
    tmp_path: Path,
) -> None:
    folder.add("a.jpg", draw(1, (300, 240)), exif=with_position())
    folder.add("b.png", draw(2))
    folder.add("a.txt", "ein Hündchen")
    folder.add("b.txt", 'two "quoted" words')
    before = datasets.prepare(folder.path, tmp_path / "out", resolution=64)
    after = datasets.prepare(tmp_path / "out", tmp_path / "again", resolution=64)
    captions = ["ein Hündchen", 'two "quoted" words']
    assert [image.caption for image in before.images] == captions
    assert [image.caption for image in after.images] == captions
    assert hash_files(tmp_path / "again") == hash_files(tmp_path / "out")


def test_equal_folders_give_equal_bytes_in_another_process(
    folder: Folder,
    draw: Draw,
    tmp_path: Path,
) -> None:
    folder.add("a.jpg", draw(1, (700, 500)), exif=with_position())
    folder.add("a.txt", "words")
    code = (
        "import sys; from pathlib import Path; from orchestrator import datasets;"
        "datasets.prepare(Path(sys.argv[1]), Path(sys.argv[2]), resolution=64)"
    )
    there = tmp_path / "there"
    command = [sys.executable, "-c", code, folder.path, there]
    subprocess.run(command, check=True)
    here = prepared(folder, tmp_path / "here")
    assert here == {path.name: path.read_bytes() for path in there.iterdir()}


def test_a_destination_in_use_is_left_alone(folder: Folder, draw: Draw, tmp_path: Path) -> None:
    folder.add("a.png", draw())
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("x")
    with pytest.raises(DatasetError, match="is not empty"):
        prepared(folder, out)
    assert [path.name for path in out.iterdir()] == ["precious"]


def test_a_folder_that_cannot_be_used_leaves_nothing_of_its_good_images(
    folder: Folder, draw: Draw, tmp_path: Path
) -> None:
    folder.add("a.png", draw(1))
    folder.add("b.gif", b"")
    with pytest.raises(DatasetError):
        prepared(folder, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_each_image_is_read_and_decoded_once(
    folder: Folder, draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []

    def counting(data: bytes, *, resolution: int) -> Decoded:
        decoded.append(data)
        return decode(data, resolution=resolution)

    monkeypatch.setattr("orchestrator.datasets.preparation.decode", counting)
    folder.add("a.jpg", draw(1), exif=with_position())
    folder.add("b.png", draw(2))
    prepared(folder, tmp_path / "out")
    assert decoded == [path.read_bytes() for path in sorted(folder.path.iterdir())]


def test_a_disk_that_cannot_be_written_is_a_machine_error(
    folder: Folder,
    draw: Draw,
    tmp_path: Path,
) -> None:
    folder.add("a.png", draw())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineError, match="prepared images cannot be written"):
        datasets.prepare(folder.path, tmp_path / "file" / "out", resolution=64)


def test_a_write_that_fails_half_way_leaves_nothing(
    folder: Folder,
    draw: Draw,
    tmp_path: Path,
) -> None:
    folder.add("a.png", draw())
    code = (
        "import resource, signal, sys; from pathlib import Path; from orchestrator import datasets;"
        "from orchestrator.errors import MachineError;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: datasets.prepare(Path(sys.argv[1]), Path(sys.argv[2]), resolution=64)\n"
        "except MachineError as error: sys.stdout.write(error.render())\n"
    )
    command = [sys.executable, "-c", code, folder.path, tmp_path / "out"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "File too large" in result.stdout
    assert not list((tmp_path / "out").iterdir())


def test_the_original_size_of_an_image_that_is_scaled_down_is_kept(folder: Folder, draw: Draw, tmp_path: Path) -> None:
    folder.add("a.png", draw(1))
    folder.add("b.png", draw(2, (900, 600)))
    files = prepared(folder, tmp_path / "out")
    assert pixels(files["00002.png"]).size == (384, 256)
    row = json.loads(files["metadata.jsonl"])
    assert row == {"file_name": "00002.png", "width": 900, "height": 600}
