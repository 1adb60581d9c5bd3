"""Sort the files of a folder by their names, links and first bytes; no image is decoded here."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from orchestrator.contract.datasets import CAPTIONS_FILE, MASK_ENDING
from orchestrator.datasets.file_kinds import (
    IMAGE_EXTENSION,
    SIGNATURE_BYTES,
    SUPPORTED,
    foreign_file,
    unsupported_image,
)
from orchestrator.datasets.findings import Defect, Findings
from orchestrator.errors import DatasetError
from orchestrator.terminal import printable

IMAGES_OPTION = "--images"
"""Names the folder to train on."""
MAX_IMAGES = 10_000
MAX_SHOWN_FOLDERS = 10  # sub-folders in a message
IGNORED = re.compile(
    r"\.|@eadir|((eh)?thumbs\.db|desktop\.ini|picasa\.ini|icon\r|__macosx|preferences\.jsonl|(readme|licen[cs]e)(\.md|\.rst|\.txt)?)$",
    re.IGNORECASE,
)
CAPTION_EXTENSIONS = (".txt", ".caption")
CAPTION_TABLES = (CAPTIONS_FILE, "metadata.csv")

MASK_FOLDERS = {"mask", "masks"}

Kind = Literal["image", "mask", "caption", "table", "unusable", "skipped"]


class Listing(NamedTuple):
    """The files of a folder that inspection continues with, each group sorted by name."""

    images: tuple[str, ...]
    """Files in a supported image format."""
    caption_files: tuple[str, ...]
    """Text files, each with the caption of one image."""
    caption_tables: tuple[str, ...]
    """`metadata.jsonl` and `metadata.csv`, with a line for each image."""
    unusable: tuple[str, ...]
    """Images that cannot be used; the problem of each is already among the findings."""
    masks: tuple[str, ...]
    """Images that are masks of others, by their names."""

    @property
    def all_images(self) -> tuple[str, ...]:
        """Usable or not."""
        return self.images + self.unusable


def list_folder(
    folder: Path,
    findings: Findings,
    *,
    used: Collection[str] = (),
    option: str = IMAGES_OPTION,
) -> Listing:
    """Sort the files of `folder` into images, masks and captions and report the others; raises DatasetError.

    Sub-folders are not read, and reported when they hold images, unless they are `used` elsewhere.

    Hidden files, those that operating systems leave behind, a readme and a licence are ignored without a warning.
    `option` is the one that named the folder, for messages.
    """
    files: dict[Kind, list[str]] = defaultdict(list)
    folders: list[str] = []
    foreign: dict[Defect, list[str]] = defaultdict(list)
    for name in _names(folder, option):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            folders.append(name)
        else:
            kind = _kind(folder, name, findings)
            files[kind].append(name)
            if kind == "skipped":
                foreign[foreign_file(folder / name)].append(name)
    _warn_of_foreign(foreign, findings)
    listing = Listing(
        images=tuple(files["image"]),
        caption_files=tuple(files["caption"]),
        caption_tables=tuple(files["table"]),
        unusable=tuple(files["unusable"]),
        masks=tuple(files["mask"]),
    )
    _check_not_too_many(folder, listing)
    if not listing.images and not listing.unusable:
        raise _no_images(folder, folders, findings, option)
    for name in folders:
        if name not in used:
            _warn_of_folder(folder, name, findings)
    return listing


def _names(folder: Path, option: str) -> list[str]:
    """Return the names in a folder that are not ignored, sorted; raises DatasetError when it cannot be read."""
    shown = printable(str(folder))
    try:
        names = [path.name for path in folder.iterdir()]
        (folder / os.pardir).stat()  # fails in a folder that can be listed and not entered
    except FileNotFoundError:
        next_step = "check the path, then submit again"
        raise DatasetError(f"There is no folder {shown}.", next_step=next_step) from None
    except NotADirectoryError:
        parent = printable(str(folder.parent))
        message = f"{shown} is a file, not a folder of images."
        raise DatasetError(message, next_step=f"name its folder: {option} {parent}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        message = f"The folder {shown} cannot be read: {reason}."
        next_step = "fix the folder's permissions (chmod u+rx) or the path, then submit again"
        raise DatasetError(message, next_step=next_step) from None
    listed = []
    for name in sorted(names):
        if not IGNORED.match(name):
            listed.append(name)
    return listed


def _kind(folder: Path, name: str, findings: Findings) -> Kind:
    """Return what a file is, mostly by its content; adds a finding for one that is unusable or skipped."""
    path = folder / name
    if path.is_symlink():
        what = link_problem(path, folder)
        if what:
            findings.problem(name, what, "replace the link by the image itself, or remove it")
            return "unusable"
    if not path.is_file():
        return "skipped"
    if name.lower() in CAPTION_TABLES:
        return "table"
    if name.lower().endswith(CAPTION_EXTENSIONS):
        return "caption"
    return _kind_by_content(path, findings)


def link_problem(link: Path, folder: Path) -> str:
    """Return why a symbolic link cannot be used, or an empty text."""
    target = Path(os.path.realpath(link))  # Path.resolve raises on a loop
    if not target.is_relative_to(folder.resolve()):
        return "is a link to a file outside the folder"
    if not target.exists():
        return "is a broken link"
    return ""


def _kind_by_content(path: Path, findings: Findings) -> Kind:
    """Return what a file is by its first bytes; its extension only decides how one of unknown content is reported."""
    name = path.name
    try:
        with path.open("rb") as file:
            start = file.read(SIGNATURE_BYTES)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        findings.problem(name, what, "allow reading it (chmod u+r), or remove it")
        return "unusable"
    defect = unsupported_image(name, start)
    if defect is None:
        if not SUPPORTED.match(start):
            return "skipped"
        is_mask = Path(name).stem.lower().endswith(MASK_ENDING)
        return "mask" if is_mask else "image"
    findings.problem(name, defect.what, defect.fix)
    return "unusable"


def _warn_of_foreign(foreign: Mapping[Defect, Sequence[str]], findings: Findings) -> None:
    """Warn of files that are skipped, those of one kind together: another trainer's cache has a file for each image."""
    for defect, names in foreign.items():
        what = defect.what
        others = len(names) - 1
        if others == 1:
            what = f"{what}; so is {names[1]}"
        elif others:
            what = f"{what}; so are {others} others of this kind"
        findings.warn(names[0], what, defect.fix)


def _check_not_too_many(folder: Path, listing: Listing) -> None:
    """Raise DatasetError for more than MAX_IMAGES images."""
    count = len(listing.images)
    if count > MAX_IMAGES:
        shown = printable(str(folder))
        message = f"{shown} holds {count} images; at most {MAX_IMAGES} are allowed."
        next_step = "put the ones to train on into a folder of their own, then submit again"
        raise DatasetError(message, next_step=next_step)


def _no_images(
    folder: Path,
    folders: list[str],
    findings: Findings,
    option: str,
) -> DatasetError:
    """Return the error for a folder without images; it names the sub-folders that have some."""
    shown = printable(str(folder))
    counts: dict[str, int] = {}
    for name in folders:
        count = _count_images(folder / name)
        if count:
            counts[name] = count
    if not counts:
        return DatasetError(
            f"There are no images in {shown}.",
            next_step="put images there (JPEG, PNG, HEIC, WebP, TIFF, ...), then submit again",
            problems=findings.warnings,
        )
    found = []
    for name, count in counts.items():
        text = f"{printable(name)} ({count})"
        found.append(text)
    listed = ", ".join(found[:MAX_SHOWN_FOLDERS])
    first = folder / next(iter(counts))
    shown_first = printable(str(first))
    return DatasetError(
        f"{shown} holds no images itself; its sub-folders do: {listed}.",
        next_step=f"name one of them: {option} {shown_first}",
        warnings=findings.warnings,
    )


def _warn_of_folder(folder: Path, name: str, findings: Findings) -> None:
    """Warn of a sub-folder with images, which are not used."""
    count = _count_images(folder / name)
    if count == 0:
        return
    what = "is a sub-folder; the image in it is skipped"
    if count > 1:
        what = f"is a sub-folder; the {count} images in it are skipped"
    fix = "move them up to use them too"
    if name.lower() in MASK_FOLDERS:
        fix = f"put the mask of each image beside it, as NAME{MASK_ENDING}.png"
    findings.warn(f"{name}/", what, fix)


def _count_images(folder: Path) -> int:
    """Count files with an image's extension, which is enough for a hint, in all levels; links are not followed.

    Stops after MAX_IMAGES files, because the folder may be somebody's whole disk.
    """
    seen = count = 0
    for _, _, names in os.walk(folder):
        for name in names:
            seen += 1
            if seen > MAX_IMAGES:
                return count
            if IMAGE_EXTENSION.search(name):
                count += 1
    return count
