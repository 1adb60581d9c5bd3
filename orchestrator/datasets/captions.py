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
from orchestrator.datasets.findings import Findings
from orchestrator.datasets.listing import Listing

MAX_CAPTION = 1000  # characters
MAX_CAPTION_BYTES = 16 * 1024
MAX_CAPTIONS_FILE_BYTES = 64 * 2**20
SHOWN_CHARACTERS = 60  # of a caption in a message
SHOWN_NAMES = 5  # of files in a message


def read_captions(folder: Path, listing: Listing, findings: Findings) -> dict[str, str]:
    """Return the captions by picture file name and note what is wrong with them; white space runs become a space."""
    beside = _from_text_files(folder, listing, findings)
    table = _from_table(folder, listing, findings) if listing.has_captions_file else {}
    for name in sorted(beside.keys() & table.keys()):
        if beside[name] != table[name]:
            what = f"has two captions: {_quote(beside[name])} in its .txt, {_quote(table[name])} in {CAPTIONS_FILE}"
            findings.problem(name, what, "keep one of them")
    captions = {**table, **beside}
    _note_missing(listing.pictures, captions, findings)
    return captions


def _quote(caption: str) -> str:
    return f'"{caption[:SHOWN_CHARACTERS]}{"..." if len(caption) > SHOWN_CHARACTERS else ""}"'


def _note_missing(pictures: tuple[str, ...], captions: Mapping[str, str], findings: Findings) -> None:
    bare = [name for name in pictures if name not in captions]
    if captions and bare:
        shown = ", ".join(bare[:SHOWN_NAMES]) + (", ..." if len(bare) > SHOWN_NAMES else "")
        findings.warn(bare[0], f"{len(bare)} of {len(pictures)} pictures have no caption: {shown}", "caption them too")


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", Path(name).stem)  # macOS decomposes accents in file names, editors compose them


def _from_text_files(folder: Path, listing: Listing, findings: Findings) -> dict[str, str]:
    captions = {}
    pictures = defaultdict(list)
    for name in (*listing.pictures, *listing.unusable):
        pictures[_stem(name)].append(name)
    for file in listing.caption_files:
        if _stem(file) not in pictures:
            findings.warn(file, "is left out: no picture has this name", "name a caption file like its picture")
            continue
        text = _read_text(folder / file, MAX_CAPTION_BYTES, findings)
        if text is not None and (caption := _checked(text, file, "", findings)):
            captions.update(dict.fromkeys(pictures[_stem(file)], caption))
    return captions


def _read_text(path: Path, limit: int, findings: Findings) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            findings.problem(path.name, f"is longer than {limit} bytes", "shorten it")
            return None
        return data.decode("utf-8-sig")
    except OSError as error:
        findings.problem(path.name, f"cannot be read: {error.strerror}", "allow reading it (chmod u+r), or remove it")
    except UnicodeDecodeError:
        findings.problem(path.name, "is not UTF-8 text", "save it as UTF-8")
    return None


def _checked(text: str, where: str, line: str, findings: Findings) -> str | None:
    """Return the caption in one line; None, and a finding, when there is no caption or it cannot be used."""
    caption = " ".join(text.split())
    if not caption:
        findings.warn(where, f"{line}holds no caption", "write one, or remove it")
        return None
    if len(caption) > MAX_CAPTION:
        what = f"{line}the caption has {len(caption)} characters, at most {MAX_CAPTION} are taken"
        findings.problem(where, what, "shorten it; the text encoder reads about 75 words")
        return None
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in caption):
        findings.problem(where, f"{line}the caption holds control characters", "write it as plain UTF-8 text")
        return None
    return caption


def _from_table(folder: Path, listing: Listing, findings: Findings) -> dict[str, str]:
    text = _read_text(folder / CAPTIONS_FILE, MAX_CAPTIONS_FILE_BYTES, findings)
    captions: dict[str, str] = {}
    first_lines: dict[str, int] = {}
    known = {unicodedata.normalize("NFC", name): name for name in (*listing.pictures, *listing.unusable)}
    for number, line in enumerate((text or "").split("\n"), 1):  # not splitlines: JSON may hold U+2028
        if not line.strip():
            continue
        entry = _parse(line, number, findings)
        name = _named_picture(entry, number, known, findings) if entry is not None else None
        if entry is None or name is None:
            continue
        if name in first_lines:
            what = f"line {number}: names {name} again, after line {first_lines[name]}"
            findings.problem(CAPTIONS_FILE, what, "keep one of the two lines")
            continue
        first_lines[name] = number
        if caption := _entry_caption(entry, number, findings):
            captions[name] = caption
    return captions


def _parse(line: str, number: int, findings: Findings) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "it is nested too deep, or holds a number too long")
        findings.problem(CAPTIONS_FILE, f"line {number}: is not JSON: {reason}", "mend the line")
        return None
    if isinstance(entry, dict):
        return entry
    what = f"line {number}: is not a JSON object"
    findings.problem(CAPTIONS_FILE, what, 'write {"file_name": "a.jpg", "text": "what it shows"}')
    return None


def _named_picture(entry: dict[str, Any], number: int, known: Mapping[str, str], findings: Findings) -> str | None:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        findings.problem(CAPTIONS_FILE, f'line {number}: "file_name" is missing', "name the picture it belongs to")
        return None
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    if path.is_absolute() or PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts:
        what = f"line {number}: {name} points outside the folder"
        findings.problem(CAPTIONS_FILE, what, "give the name of a picture in this folder")
        return None
    if str(path) not in known:
        findings.problem(CAPTIONS_FILE, f"line {number}: there is no picture {name}", _missing_fix(path))
        return None
    return known[str(path)]


def _missing_fix(path: PurePosixPath) -> str:
    if len(path.parts) > 1:
        return "pictures in sub-folders are not used: move it up, or remove the line"
    return "correct the name, or remove the line"


def _entry_caption(entry: dict[str, Any], number: int, findings: Findings) -> str | None:
    text = entry.get("text")
    if isinstance(text, str):
        return _checked(text, CAPTIONS_FILE, f"line {number}: ", findings)
    others = ", ".join(key for key in entry if key not in {"file_name", "text"})
    fix = f'the caption belongs under "text"; found: {others}' if others else 'add "text", or remove the line'
    what = f'line {number}: "text" is not a string' if "text" in entry else f'line {number}: "text" is missing'
    findings.problem(CAPTIONS_FILE, what, fix)
    return None
