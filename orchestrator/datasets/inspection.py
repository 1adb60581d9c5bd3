"""Look at every file of a folder and report all that is wrong with it at once."""

import hashlib
from pathlib import Path

from orchestrator.contract.digest import FileDigest
from orchestrator.datasets.captions import read_captions
from orchestrator.datasets.dataset import Dataset, Picture
from orchestrator.datasets.decoding import MAX_BYTES, Defect, UnusableError, decode
from orchestrator.datasets.findings import Findings
from orchestrator.datasets.listing import list_folder
from orchestrator.datasets.similarity import Likeness, likeness, note_duplicates
from orchestrator.errors import DatasetError
from orchestrator.terminal import printable


def inspect(folder: Path, *, resolution: int) -> Dataset:
    """Return the pictures and captions of `folder`; raises DatasetError with every problem of every file.

    Pictures lie directly in the folder and are told by their content: PNG, JPEG or WebP. `resolution` is the side
    of the training pictures in pixels. Every picture is decoded whole, because nothing less shows that it can be.
    """
    findings = Findings()
    listing = list_folder(folder, findings)
    captions = read_captions(folder, listing, findings)
    looks = [_look_at(folder, name, resolution, captions.get(name), findings) for name in listing.pictures]
    seen = [look for look in looks if look is not None]
    note_duplicates([str(picture.file) for picture, _ in seen], [own for _, own in seen], findings)
    if findings.problems:
        files = len({problem.where for problem in findings.problems})
        message = f"{files} file{'s' * (files > 1)} in {printable(str(folder))} cannot be used"
        next_step = "mend or remove these files, then submit again"
        raise DatasetError(message, next_step=next_step, problems=findings.problems)
    pictures = tuple(picture for picture, _ in seen)
    return Dataset(folder=folder, resolution=resolution, pictures=pictures, warnings=findings.warnings)


def read_picture_file(path: Path) -> bytes:
    """Return a picture's file whole; raises UnusableError when it is too large or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnusableError(Defect(f"cannot be read: {error.strerror}", "allow reading it (chmod u+r)")) from None
    if len(data) > MAX_BYTES:
        raise UnusableError(Defect(f"is larger than {MAX_BYTES // 2**20} MB", "save it smaller"))
    return data


def _look_at(
    folder: Path, name: str, resolution: int, caption: str | None, findings: Findings
) -> tuple[Picture, Likeness] | None:
    try:
        data = read_picture_file(folder / name)
        decoded = decode(data, resolution=resolution)
    except UnusableError as error:
        for defect in error.defects:
            findings.problem(name, *defect)
        return None
    for remark in decoded.remarks:
        findings.warn(name, *remark)
    own = likeness(decoded.image)
    picture = Picture(
        file=Path(name),
        width=decoded.width,
        height=decoded.height,
        caption=caption,
        digest=FileDigest(sha256=hashlib.sha256(data).hexdigest(), size=len(data)),
        pixels_sha256=own.pixels_sha256,
        as_is=decoded.as_is,
    )
    return picture, own
