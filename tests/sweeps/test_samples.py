"""Reading the images of an adapter, which may have been made anywhere: what is no PNG of theirs does no harm."""

import json
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from PIL import Image

from orchestrator.contract import samples as limits
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.errors import MachineError
from orchestrator.storage import FolderStore
from orchestrator.sweeps.samples import Samples, SamplesError, decode_cell, read_samples

MANIFEST: dict[str, Any] = {
    "recipe": "dreambooth",
    "config": {},
    "base_model": {"id": "builtin", "fingerprint": "f", "family": "sd"},
    "dataset_sha256": "d",
    "bundle_sha256": "b",
    "trigger": "sks dog",
    "libraries": {},
}
SIDE = 32


def png(colour: tuple[int, int, int]) -> bytes:
    file = BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour).save(file, format="PNG")
    return file.getvalue()


def entry(file: str, source: str = "after", text: str = "on red", **fields: object) -> dict[str, object]:
    return {"file": file, "source": source, "prompt": f"sks {text}", "text": text, "seed": 0, "step": None, **fields}


IMAGES = {
    "real.png": png((9, 9, 9)),
    "b.png": png((0, 0, 200)),
    "a0.png": png((200, 0, 0)),
    "a1.png": png((200, 0, 1)),
    "a2.png": png((200, 0, 2)),
    "c.png": png((0, 200, 0)),
}
INDEX = [
    entry("real.png", "real", ""),
    entry("b.png", "before"),
    entry("a0.png"),
    entry("a1.png"),
    entry("a2.png", text="on blue"),
    entry("c.png", "condition", text="on blue"),
]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Samples]:
    """Make an adapter of the files and read its images."""

    def read(files: dict[str, bytes], index: Any = None, spoil: Callable[[Path], object] | None = None) -> Samples:
        folder = tmp_path / "adapters" / "dog"
        (folder / "samples").mkdir(parents=True)
        if index is not None:
            text = index if isinstance(index, bytes) else json.dumps({"images": index}).encode()
            (folder / "samples" / "index.json").write_bytes(text)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        manifest = AdapterManifest.model_validate(MANIFEST).write(folder)
        if spoil:
            spoil(folder)
        return read_samples(FolderStore(tmp_path), "adapters/dog", manifest)

    return read


def in_samples(images: dict[str, bytes]) -> dict[str, bytes]:
    return {f"samples/{name}": data for name, data in images.items()}


def colours(images: Any) -> list[Any]:
    return [image.getpixel((64, 64)) for image in images]


def test_images_are_read_by_what_made_them_and_by_prompt(read: Callable[..., Samples]) -> None:
    found = read(in_samples(IMAGES), INDEX)
    assert found.prompts == {"on red": "sks on red", "on blue": "sks on blue"}
    assert colours(found.real) == [(9, 9, 9)]
    assert {text: colours(strip) for text, strip in found.before.items()} == {"on red": [(0, 0, 200)]}
    assert {text: colours(strip) for text, strip in found.after.items()} == {
        "on red": [(200, 0, 0), (200, 0, 1)],
        "on blue": [(200, 0, 2)],
    }
    assert {image.size for image in found.after["on red"]} == {(limits.CELL, limits.CELL)}


def test_what_a_later_version_adds_to_the_index_is_ignored(read: Callable[..., Samples]) -> None:
    index = {"format": 2, "model": "x", "images": [{**one, "sampler": "ddim"} for one in INDEX]}
    assert len(read(in_samples(IMAGES), json.dumps(index).encode()).after) == 2


def test_images_of_earlier_steps_are_left_out(read: Callable[..., Samples]) -> None:
    found = read(in_samples(IMAGES), [*INDEX[:3], entry("a1.png", step=100)])
    assert len(found.after["on red"]) == 1


def test_an_adapter_of_an_older_version_is_told_from_one_without_images(read: Callable[..., Samples]) -> None:
    with pytest.raises(SamplesError, match="older version"):
        read({"contact_sheet.png": IMAGES["b.png"]})


def test_an_adapter_without_images_says_why(read: Callable[..., Samples]) -> None:
    with pytest.raises(SamplesError, match="evaluation_prompts=0"):
        read({})


def test_an_image_that_was_changed_is_refused(read: Callable[..., Samples]) -> None:
    with pytest.raises(MachineError, match="not what was stored"):
        read(in_samples(IMAGES), INDEX, lambda folder: (folder / "samples" / "b.png").write_bytes(IMAGES["a0.png"]))


@pytest.mark.parametrize("file", ["../adapter.png", "/etc/a.png", "a/b.png", "..png", "a.jpg", "a.png\n", ".a.png", ""])
def test_a_name_that_leads_out_of_the_folder_is_refused(read: Callable[..., Samples], file: str) -> None:
    with pytest.raises(SamplesError, match="cannot be read"):
        read(in_samples(IMAGES), [entry(file)])


@pytest.mark.parametrize(
    "index",
    [b"hello", b"[]", b'{"images": 1}', json.dumps({"images": [entry("b.png", "painter")]}).encode()],
    ids=["no JSON", "no object", "no list", "no known source"],
)
def test_an_index_that_is_none_is_refused(read: Callable[..., Samples], index: bytes) -> None:
    with pytest.raises(SamplesError, match="cannot be read"):
        read(in_samples(IMAGES), index)


def test_an_index_of_too_many_images_is_refused(read: Callable[..., Samples]) -> None:
    with pytest.raises(SamplesError, match="cannot be read"):
        read(in_samples(IMAGES), [entry("b.png")] * (limits.MOST_IMAGES + 1))


def test_an_image_that_the_manifest_does_not_list_is_refused(read: Callable[..., Samples]) -> None:
    with pytest.raises(SamplesError, match="not in its manifest"):
        read(in_samples(IMAGES), [entry("gone.png")])


def test_a_file_of_too_many_bytes_is_not_fetched(read: Callable[..., Samples], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.sweeps.samples.MOST_IMAGE_BYTES", len(IMAGES["b.png"]) - 1)
    with pytest.raises(SamplesError, match="more than"):
        read(in_samples(IMAGES), INDEX, lambda folder: (folder / "samples" / "b.png").unlink())


def header_of(side: int) -> bytes:
    """Return the beginning of a PNG that says how wide and high it is."""
    chunks = [b"IHDR" + pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"IDAT"]
    written = [pack(">I", len(chunk) - 4) + chunk + pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def test_an_image_of_too_many_pixels_is_refused_by_its_header() -> None:
    with pytest.raises(ValueError, match="pixels, more than"):
        decode_cell(header_of(2049))


def jpeg() -> bytes:
    file = BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(file, format="JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", IMAGES["b.png"][:50], header_of(64), header_of(60000), jpeg()],
    ids=["empty", "text", "cut off", "no pixels", "a bomb", "another format"],
)
def test_what_is_no_png_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode_cell(data)
