"""From a person's folder of pictures to what training gets, in one pass: each file is read and decoded once.

Pixels and captions are written, and nothing a person did not mean to hand over.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from orchestrator.contract.datasets import CAPTIONS_FILE
from orchestrator.datasets.captions import read_captions
from orchestrator.datasets.dataset import Dataset, Picture
from orchestrator.datasets.decoding import MAX_BYTES, Decoded, Defect, UnusableError, decode
from orchestrator.datasets.findings import Findings
from orchestrator.datasets.listing import list_folder
from orchestrator.datasets.metadata import without_metadata
from orchestrator.datasets.similarity import likeness, note_duplicates
from orchestrator.errors import DatasetError, MachineError
from orchestrator.terminal import printable

ENDINGS = {b"\x89": ".png", b"\xff": ".jpg", b"R": ".webp"}  # by the first byte of the file


def prepare(folder: Path, destination: Path, *, resolution: int) -> Dataset:
    """Check every file of `folder` and write what training gets of it to an empty `destination`.

    Pictures lie directly in the folder and are told by their content: PNG, JPEG or WebP. `resolution` is the side
    of the training pictures in pixels. Every picture is decoded whole, because nothing less shows that it can be.

    What is written is upright, RGB, 8 bit, in sRGB, and without metadata: no GPS position, EXIF, XMP, IPTC, comment,
    thumbnail or profile. A file that is all that already is copied byte for byte, and a JPEG that is all but the last
    is copied without its metadata; any other becomes a lossless PNG. A picture whose short side is more than 4 times
    the training resolution is first scaled down to that (Lanczos), because a large photograph as PNG is ten times its
    size. `metadata.jsonl` has a line for each captioned picture. Pictures are numbered in their order: file names tell
    of people and places, and training needs none of them. Equal folders give equal bytes.

    On any failure the destination is left empty. Raises DatasetError with every problem of every file, MachineError
    when writing fails.
    """
    with _writing(destination):
        destination.mkdir(parents=True, exist_ok=True)
        in_use = any(destination.iterdir())
    if in_use:
        raise DatasetError(f"{printable(str(destination))} is not empty", next_step="name an empty folder")
    try:
        return _prepare(folder, destination, resolution)
    except BaseException:
        _empty(destination)
        raise


def _prepare(folder: Path, destination: Path, resolution: int) -> Dataset:
    findings = Findings()
    listing = list_folder(folder, findings)
    captions = read_captions(folder, listing, findings)
    pictures, likenesses, lines = [], [], []
    for number, name in enumerate(listing.pictures, 1):
        source = _read(folder / name, resolution, findings)
        if source is None:
            continue
        caption = captions.get(name)
        decoded = source.decoded
        picture = Picture(file=Path(name), width=decoded.width, height=decoded.height, caption=caption)
        pictures.append(picture)
        likenesses.append(likeness(decoded.image))
        prepared = f"{number:05}{source.ending}"
        if not findings.problems:  # else nothing of it is kept
            with _writing(destination):
                source.write(destination / prepared)
        if caption is not None:
            line = json.dumps({"file_name": prepared, "text": caption})
            lines.append(f"{line}\n")
    note_duplicates([str(picture.file) for picture in pictures], likenesses, findings)
    _require_no_problems(folder, findings)
    if lines:
        with _writing(destination):
            (destination / CAPTIONS_FILE).write_text("".join(lines), encoding="ascii", newline="\n")
    return Dataset(folder=folder, resolution=resolution, pictures=tuple(pictures), warnings=findings.warnings)


class _Source(NamedTuple):
    """A picture that was read, and what training gets of it."""

    data: bytes
    """The file, without metadata where that can be told apart from the pixels."""
    decoded: Decoded

    @property
    def ending(self) -> str:
        return ENDINGS[self.data[:1]] if self.decoded.as_is else ".png"

    def write(self, path: Path) -> None:
        if self.decoded.as_is:
            path.write_bytes(self.data)
        else:
            self.decoded.image.save(path, format="PNG", compress_level=3)  # 3 times as fast as 6, 2 % larger


def _read(path: Path, resolution: int, findings: Findings) -> _Source | None:
    """Read and decode a picture; note what is wrong with it, and return None when it cannot be used."""
    try:
        data = _read_file(path)
        decoded = decode(data, resolution=resolution)
    except UnusableError as error:
        for defect in error.defects:
            findings.problem(path.name, *defect)
        return None
    for remark in decoded.remarks:
        findings.warn(path.name, *remark)
    return _Source(without_metadata(data), decoded)


def _read_file(path: Path) -> bytes:
    """Return a picture's file whole; raises UnusableError when it is too large or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnusableError(Defect(f"cannot be read: {error.strerror}", "allow reading it (chmod u+r)")) from None
    if len(data) > MAX_BYTES:
        raise UnusableError(Defect(f"is larger than {MAX_BYTES // 2**20} MB", "save it smaller"))
    return data


def _require_no_problems(folder: Path, findings: Findings) -> None:
    if not findings.problems:
        return
    files = len({problem.where for problem in findings.problems})
    message = f"{files} file{'s' * (files > 1)} in {printable(str(folder))} cannot be used"
    next_step = "mend or remove these files, then submit again"
    raise DatasetError(message, next_step=next_step, problems=findings.problems)


@contextmanager
def _writing(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"cannot write the prepared pictures to {printable(str(destination))}: {error.strerror or error}"
        raise MachineError(message, next_step="free disk space or mend the permissions, then submit again") from error


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
