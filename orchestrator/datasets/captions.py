"""Captions in both common forms: `name.txt` beside `name.jpg`, and a Hugging Face ImageFolder `metadata.jsonl`.

https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import json
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from orchestrator.contract.datasets import CAPTIONS_FILE
from orchestrator.datasets.findings import Findings, UnusableError, unusable
from orchestrator.datasets.listing import Listing

MAX_CAPTION = 1000  # characters
MAX_CAPTION_BYTES = 16 * 1024
MAX_CAPTIONS_FILE_BYTES = 64 * 2**20
SHOWN_CHARACTERS = 60  # of a caption in a message
SHOWN_NAMES = 5  # of files in a message
CONTROL_CATEGORIES = {"Cc", "Cs"}  # Unicode: control characters and lone surrogates

Captions = dict[str, str]
"""Image file name to its caption."""
Entry = dict[str, Any]
"""A line of `metadata.jsonl`."""


def read_captions(folder: Path, listing: Listing, findings: Findings) -> Captions:
    """Return the captions by image file name and report what is wrong with them.

    Runs of white space become one space.
    """
    from_text_files = _from_text_files(folder, listing, findings)
    from_table: Captions = {}
    if listing.has_captions_file:
        from_table = _from_table(folder, listing, findings)
    in_both = from_text_files.keys() & from_table.keys()
    for name in sorted(in_both):
        _check_equal(name, from_text_files[name], from_table[name], findings)
    captions = {**from_table, **from_text_files}
    _warn_of_missing(listing.images, captions, findings)
    return captions


def _check_equal(
    name: str,
    from_text_file: str,
    from_table: str,
    findings: Findings,
) -> None:
    """Report an image whose captions in the two forms differ."""
    if from_text_file == from_table:
        return
    one = _quoted(from_text_file)
    other = _quoted(from_table)
    what = f"has two captions: {one} in its .txt, {other} in {CAPTIONS_FILE}"
    findings.problem(name, what, "keep one of them")


def _quoted(caption: str) -> str:
    """Return a caption for a message, shortened."""
    shown = caption[:SHOWN_CHARACTERS]
    if len(caption) > SHOWN_CHARACTERS:
        shown += "..."
    return f'"{shown}"'


def _warn_of_missing(
    images: tuple[str, ...],
    captions: Captions,
    findings: Findings,
) -> None:
    """Warn when some images have a caption and others do not."""
    missing = [name for name in images if name not in captions]
    if not captions or not missing:
        return
    count = len(missing)
    shown = ", ".join(missing[:SHOWN_NAMES])
    if count > SHOWN_NAMES:
        shown += ", ..."
    what = f"{count} of {len(images)} images have no caption: {shown}"
    findings.warn(missing[0], what, "caption them too")


# --- text files beside the images


def _from_text_files(
    folder: Path,
    listing: Listing,
    findings: Findings,
) -> Captions:
    """Read every `name.txt`; it applies to all images with that name, whatever their extension.

    Unusable images count too, so that a caption is not reported because of its image.
    """
    images_by_stem: dict[str, list[str]] = defaultdict(list)
    for name in listing.all_images:
        stem = _stem(name)
        images = images_by_stem[stem]
        images.append(name)

    captions: Captions = {}
    for file in listing.caption_files:
        stem = _stem(file)
        if stem not in images_by_stem:
            what = "is skipped: no image has this name"
            findings.warn(file, what, "name a caption file like its image")
            continue
        try:
            text = _read_text(folder / file, MAX_CAPTION_BYTES)
            caption = _one_line(text)
        except UnusableError as error:
            findings.add_defects(file, error)
            continue
        if not caption:
            findings.warn(file, "has no caption", "write one, or remove it")
            continue
        for image in images_by_stem[stem]:
            captions[image] = caption
    return captions


def _stem(name: str) -> str:
    stem = Path(name).stem
    return _composed(stem)


def _composed(name: str) -> str:
    """Return a file name in one normal form: macOS decomposes accents, editors compose them."""
    return unicodedata.normalize("NFC", name)


def _read_text(path: Path, limit: int) -> str:
    """Return the text of a UTF-8 file of at most `limit` bytes; raises UnusableError."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        fix = "allow reading it (chmod u+r), or remove it"
        raise unusable(what, fix) from None
    if len(data) > limit:
        what = f"is longer than {limit} bytes"
        raise unusable(what, "shorten it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise unusable("is not UTF-8 text", "save it as UTF-8") from None


def _one_line(text: str) -> str:
    """Return a caption on one line, empty when there is none; raises UnusableError."""
    caption = " ".join(text.split())
    length = len(caption)
    if length > MAX_CAPTION:
        what = f"the caption has {length} characters; at most {MAX_CAPTION} are allowed"
        fix = "shorten it; the text encoder reads about 75 words"
        raise unusable(what, fix)
    for character in caption:
        if unicodedata.category(character) in CONTROL_CATEGORIES:
            what = "the caption holds control characters"
            raise unusable(what, "write it as plain UTF-8 text")
    return caption


# --- metadata.jsonl


def _from_table(folder: Path, listing: Listing, findings: Findings) -> Captions:
    """Read `metadata.jsonl` and report every line that cannot be used, by its number."""
    try:
        text = _read_text(folder / CAPTIONS_FILE, MAX_CAPTIONS_FILE_BYTES)
    except UnusableError as error:
        findings.add_defects(CAPTIONS_FILE, error)
        return {}
    files: dict[str, str] = {}  # by their composed names
    for file in listing.all_images:
        files[_composed(file)] = file

    captions: Captions = {}
    line_of: dict[str, int] = {}
    lines = text.split("\n")  # not splitlines: JSON may hold U+2028
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = _parse(line)
            name = _image_name(entry, files)
            if name in line_of:
                what = f"names {name} again, after line {line_of[name]}"
                raise unusable(what, "keep one of the two lines")
            line_of[name] = number
            caption = _entry_caption(entry)
        except UnusableError as error:
            findings.add_defects(CAPTIONS_FILE, error, line=number)
            continue
        if caption:
            captions[name] = caption
        else:
            findings.warn(CAPTIONS_FILE, f"line {number}: has no caption", "write one, or remove it")
    return captions


def _parse(line: str) -> Entry:
    """Return the object on a line; raises UnusableError when it is not one."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "it is nested too deep, or holds a number too long")
        what = f"is not JSON: {reason}"
        raise unusable(what, "fix the line") from None
    if not isinstance(entry, dict):
        example = 'write {"file_name": "a.jpg", "text": "what it shows"}'
        raise unusable("is not a JSON object", example)
    return entry


def _image_name(entry: Entry, files: Mapping[str, str]) -> str:
    """Return the file that an entry names; raises UnusableError when the folder has no such image."""
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        what = '"file_name" is missing'
        raise unusable(what, "name the image it belongs to")
    path = PurePosixPath(_composed(name))
    windows_path = PureWindowsPath(name)
    is_absolute = path.is_absolute() or windows_path.anchor
    leaves_folder = ".." in windows_path.parts
    if is_absolute or leaves_folder:
        what = f"{name} points outside the folder"
        raise unusable(what, "give the name of an image in this folder")
    file = files.get(str(path))
    if file is None:
        fix = "correct the name, or remove the line"
        if len(path.parts) > 1:
            fix = "images in sub-folders are not used: move it up, or remove the line"
        raise unusable(f"there is no image {name}", fix)
    return file


def _entry_caption(entry: Entry) -> str:
    """Return the caption of an entry, empty when there is none; raises UnusableError."""
    text = entry.get("text")
    if isinstance(text, str):
        return _one_line(text)
    what = '"text" is missing'
    if "text" in entry:
        what = '"text" is not a string'
    fix = 'add "text", or remove the line'
    others = [key for key in entry if key not in {"file_name", "text"}]
    if others:
        found = ", ".join(others)
        fix = f'the caption belongs under "text"; found: {found}'
    raise unusable(what, fix)
