"""Write what training gets: pixels and captions, and nothing a person did not mean to hand over."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.datasets.dataset import Dataset, Picture
from orchestrator.datasets.decoding import Defect, UnusableError, decode
from orchestrator.datasets.findings import Findings
from orchestrator.datasets.inspection import read_picture_file
from orchestrator.datasets.listing import CAPTIONS_FILE
from orchestrator.datasets.metadata import without_metadata
from orchestrator.errors import DatasetError, MachineError
from orchestrator.terminal import printable

if TYPE_CHECKING:
    from PIL import Image

ENDINGS = {b"\x89": ".png", b"\xff": ".jpg", b"R": ".webp"}  # by the first byte of the file


def prepare(dataset: Dataset, destination: Path) -> None:
    """Write the cleaned pictures, and `metadata.jsonl` when there are captions, to an empty `destination`.

    Each picture is upright, RGB, 8 bit, in sRGB, and without metadata: no GPS position, EXIF, XMP, IPTC, comment,
    thumbnail or profile. A file that is all that already is copied byte for byte, and a JPEG that is all but the last
    is copied without its metadata; any other becomes a lossless PNG. A picture whose short side is more than 4 times
    the training resolution is first scaled down to that (Lanczos), because a large photograph as PNG is ten times its
    size. `metadata.jsonl` has a line for each captioned picture. Pictures are numbered in their order: file names tell
    of people and places, and training needs none of them. Equal datasets give equal bytes. On any failure the
    destination is left empty. Raises DatasetError when a
    picture has changed since it was inspected, MachineError when writing fails.
    """
    try:
        destination.mkdir(parents=True, exist_ok=True)
        if any(destination.iterdir()):
            raise DatasetError(f"{printable(str(destination))} is not empty", next_step="name an empty folder")
        try:
            _write(dataset, destination)
        except BaseException:
            _empty(destination)
            raise
    except OSError as error:
        message = f"cannot write the prepared pictures to {printable(str(destination))}: {error.strerror or error}"
        raise MachineError(message, next_step="free disk space or mend the permissions, then submit again") from error


def _write(dataset: Dataset, destination: Path) -> None:
    findings = Findings()
    lines = []
    for number, picture in enumerate(dataset.pictures, 1):
        try:
            source = _reread(dataset, picture)
        except UnusableError as error:
            for defect in error.defects:
                findings.problem(str(picture.file), *defect)
            continue
        name = f"{number:05}{_ending(source)}"
        _write_picture(source, destination / name)
        if picture.caption is not None:
            lines.append(json.dumps({"file_name": name, "text": picture.caption}) + "\n")
    if findings.problems:
        message = f"pictures in {printable(str(dataset.folder))} have changed since they were looked at"
        raise DatasetError(message, next_step="submit again", problems=findings.problems)
    if lines:
        (destination / CAPTIONS_FILE).write_text("".join(lines), encoding="ascii", newline="\n")


class _Source(NamedTuple):
    data: bytes
    image: "Image.Image | None"
    """What training gets instead of the data."""


def _reread(dataset: Dataset, picture: Picture) -> _Source:
    data = read_picture_file(dataset.folder / picture.file)
    if hashlib.sha256(data).hexdigest() != picture.digest.sha256:
        raise UnusableError(Defect("is not the file that was looked at", "let other programs finish with it"))
    if picture.as_is:
        return _Source(without_metadata(data), None)
    return _Source(data, decode(data, resolution=dataset.resolution).image)


def _write_picture(source: _Source, path: Path) -> None:
    if source.image is None:
        path.write_bytes(source.data)
    else:
        source.image.save(path, format="PNG", compress_level=3)  # 3 times as fast as 6, 2 % larger


def _ending(source: _Source) -> str:
    return ENDINGS[source.data[:1]] if source.image is None else ".png"


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
