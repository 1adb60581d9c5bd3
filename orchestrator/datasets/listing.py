"""What lies in a folder, told from names, links and the first bytes of each file; no picture is decoded here."""

import os
import re
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from orchestrator.contract.datasets import CAPTIONS_FILE
from orchestrator.datasets.findings import Findings
from orchestrator.errors import DatasetError
from orchestrator.terminal import printable

MAX_PICTURES = 10_000
PASSED_OVER = re.compile(
    r"\.|(thumbs\.db|desktop\.ini|__macosx|(readme|licen[cs]e)(\.md|\.rst|\.txt)?)$", re.IGNORECASE
)
PICTURE_ENDING = re.compile(
    r"\.(png|jpe?g|jpe|jfif|webp|gif|tiff?|bmp|hei[cf]|avif|jxl|jp2|psd|dng|cr2|nef|arw)$", re.IGNORECASE
)
ACCEPTED = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP", re.DOTALL)
FOREIGN = {
    "GIF": re.compile(rb"GIF8[79]a"),
    "TIFF or camera raw": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "BMP": re.compile(rb"BM....\0\0\0\0", re.DOTALL),
    "HEIC or AVIF": re.compile(rb"....ftyp(hei[cxm]|hevc|mif1|msf1|avi[fs])", re.DOTALL),
    "JPEG XL": re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"),
    "JPEG 2000": re.compile(rb"\0\0\0\x0cjP  "),
    "Photoshop": re.compile(rb"8BPS"),
}
HEAD = 16  # bytes, enough for every signature above

Kind = Literal["picture", "caption", "captions", "unusable"]


class Listing(NamedTuple):
    """The files of a folder that inspection goes on with, each group sorted by name."""

    pictures: tuple[str, ...]
    caption_files: tuple[str, ...]
    has_captions_file: bool
    unusable: tuple[str, ...]
    """Pictures that cannot be taken; what is wrong with each is already noted."""


def list_folder(folder: Path, findings: Findings) -> Listing:
    """Sort the files of `folder` into pictures and captions and note the rest; raises DatasetError.

    Hidden files, those that operating systems leave behind, a readme and a licence are passed over in silence.
    """
    names = _names(folder)
    folders = [name for name in names if not (folder / name).is_symlink() and (folder / name).is_dir()]
    files = [name for name in names if name not in folders]
    found = {name: _kind(folder, name, findings) for name in files}
    listing = Listing(
        pictures=tuple(name for name in files if found[name] == "picture"),
        caption_files=tuple(name for name in files if found[name] == "caption"),
        has_captions_file="captions" in found.values(),
        unusable=tuple(name for name in files if found[name] == "unusable"),
    )
    _refuse_too_many(folder, listing)
    _refuse_none(folder, listing, folders, findings)
    for name in folders:
        _note_folder(folder, name, findings)
    return listing


def _names(folder: Path) -> list[str]:
    shown = printable(str(folder))
    try:
        names = [path.name for path in folder.iterdir()]
        (folder / os.pardir).stat()  # fails in a folder that can be listed and not entered
    except FileNotFoundError:
        raise DatasetError(f"there is no folder {shown}", next_step="check the path, then submit again") from None
    except NotADirectoryError:
        name = printable(str(folder.parent))
        raise DatasetError(
            f"{shown} is a file, not a folder of pictures", next_step=f"name its folder: --images {name}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        next_step = "mend the folder's permissions (chmod u+rx) or the path, then submit again"
        raise DatasetError(f"the folder {shown} cannot be read: {reason}", next_step=next_step) from None
    return sorted(name for name in names if not PASSED_OVER.match(name))


def _kind(folder: Path, name: str, findings: Findings) -> Kind | None:
    """Tell what a file is by its content; None for one that is left out."""
    if defect := _link_defect(folder, name):
        findings.problem(name, *defect)
        return "unusable"
    if not (folder / name).is_file():
        findings.warn(name, "is left out: not a regular file", "take it out of the folder")
        return None
    if name == CAPTIONS_FILE:
        return "captions"
    if name.lower().endswith(".txt"):
        return "caption"
    return _kind_by_content(folder, name, findings)


def _link_defect(folder: Path, name: str) -> tuple[str, str] | None:
    path = folder / name
    if not path.is_symlink():
        return None
    target = Path(os.path.realpath(path))  # Path.resolve raises on a loop
    if not target.is_relative_to(folder.resolve()):
        return "is a link to a place outside the folder", "put the picture itself here"
    if not target.exists():
        return "is a broken link", "remove it, or put the picture itself here"
    return None


def _kind_by_content(folder: Path, name: str, findings: Findings) -> Kind | None:
    try:
        with (folder / name).open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        findings.problem(name, f"cannot be read: {error.strerror}", "allow reading it (chmod u+r), or remove it")
        return "unusable"
    if ACCEPTED.match(head):
        return "picture"
    if foreign := _foreign_format(head):
        findings.problem(name, f"is a {foreign} file, which is not taken", "convert to PNG or JPEG")
        return "unusable"
    if PICTURE_ENDING.search(name):
        what = "is not a picture, though its ending says so" if head else "is empty"
        findings.problem(name, what, "copy it again from the original, or remove it")
        return "unusable"
    findings.warn(name, "is left out: neither a picture nor a caption", "")
    return None


def _foreign_format(head: bytes) -> str | None:
    return next((name for name, signature in FOREIGN.items() if signature.match(head)), None)


def _refuse_too_many(folder: Path, listing: Listing) -> None:
    if len(listing.pictures) > MAX_PICTURES:
        message = f"{printable(str(folder))} holds {len(listing.pictures)} pictures; at most {MAX_PICTURES} are taken"
        raise DatasetError(message, next_step="put the ones to train on in a folder of their own, then submit again")


def _refuse_none(folder: Path, listing: Listing, folders: list[str], findings: Findings) -> None:
    if listing.pictures or listing.unusable:
        return
    shown = printable(str(folder))
    inside = [name for name in folders if _count_pictures(folder / name)]
    if inside:
        found = ", ".join(f"{printable(name)} ({_count_pictures(folder / name)})" for name in inside[:10])
        message = f"{shown} holds no pictures itself; its sub-folders do: {found}"
        raise DatasetError(message, next_step=f"name one of them: --images {printable(str(folder / inside[0]))}")
    message = f"there are no pictures in {shown}"
    next_step = "put PNG, JPEG or WebP pictures there, then submit again"
    raise DatasetError(message, next_step=next_step, problems=findings.warnings)


def _note_folder(folder: Path, name: str, findings: Findings) -> None:
    if count := _count_pictures(folder / name):
        pictures = "the picture in it is" if count == 1 else f"the {count} pictures in it are"
        findings.warn(f"{name}/", f"is a sub-folder; {pictures} left out", "move them up to use them too")


def _count_pictures(folder: Path) -> int:
    """Count by ending, which is enough for a hint; sub-folders of sub-folders count, links are not followed."""
    names = (name for _, _, files in os.walk(folder) for name in files)
    return sum(bool(PICTURE_ENDING.search(name)) for name in islice(names, MAX_PICTURES))
