"""Captions in a table, as Hugging Face's ImageFolder has them: `metadata.jsonl` or `metadata.csv`.

Both have `file_name` and `text` for each image. https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from orchestrator.contract.datasets import MOST_REPEATS
from orchestrator.contract.plurals import counted
from orchestrator.contract.words import composed
from orchestrator.datasets.caption_text import one_line, read_text
from orchestrator.datasets.findings import Findings, UnusableError, unusable

MAX_TABLE_BYTES = 64 * 2**20
FILE_NAME = "file_name"
TEXT = "text"
REPEATS = "repeats"
SHOWN = 20  # characters of a value in a message
DELIMITERS = (",", ";", "\t")  # spreadsheets of many countries write semicolons

Entry = dict[str, Any]
"""A row: column or key to value, which JSON may give any type."""
Row = tuple[int, Entry | UnusableError]
"""Its line number, and the row or why it cannot be read."""


class CaptionTable(NamedTuple):
    """What a table says, by image file name."""

    captions: dict[str, str]
    repeats: dict[str, int]
    """As how many images one counts; only those that count as several."""


def read_table(
    folder: Path,
    table: str,
    images: Sequence[str],
    findings: Findings,
) -> CaptionTable:
    """Return the rows by image file name and report every line that cannot be used, by its number."""
    captions: dict[str, str] = {}
    repeats: dict[str, int] = {}
    found = CaptionTable(captions, repeats)
    try:
        text = read_text(folder / table, MAX_TABLE_BYTES)
        is_csv = table.lower().endswith(".csv")
        rows = _csv_rows(text) if is_csv else _json_rows(text)
    except UnusableError as error:
        findings.add_defects(table, error)
        return found
    files: dict[str, str] = {}
    for image in images:
        files[composed(image)] = image
    line_of: dict[str, int] = {}
    for number, row in rows:
        try:
            if isinstance(row, UnusableError):
                raise row
            name = _image_name(row, files)
            first_line = line_of.get(name)
            if first_line is not None:
                what = f"names {name} again, after line {first_line}"
                raise unusable(what, "keep one of the two lines")
            line_of[name] = number
            caption = _caption(row)
            count = _repeats(row)
        except UnusableError as error:
            findings.add_defects(table, error, line=number)
            continue
        if caption:
            captions[name] = caption
        else:
            findings.warn(table, f"line {number}: has no caption", "write one, or remove it")
        if count > 1:
            repeats[name] = count
    return found


def _json_rows(text: str) -> Iterator[Row]:
    """Yield the objects of JSON lines."""
    lines = text.split("\n")  # not splitlines: JSON may hold U+2028
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, _json_object(line)
        except UnusableError as error:
            yield number, error


def _json_object(line: str) -> Entry:
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


def _csv_rows(text: str) -> Iterator[Row]:
    """Return the rows of a CSV table; raises UnusableError when its first line does not name the columns."""
    header, _, _ = text.lstrip().partition("\n")
    delimiter = max(DELIMITERS, key=header.count)
    lines = StringIO(text, newline="")  # csv itself finds the ends of lines: a quoted text may hold some
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        skipinitialspace=True,
        strict=True,
    )
    columns = _csv_columns(reader)
    return _csv_entries(reader, columns)


def _csv_columns(reader: Any) -> list[str]:  # csv's reader type has no public name
    """Return the columns that the first line names; raises UnusableError without `file_name` and `text`."""
    columns: list[str] = []
    try:
        while not columns:
            cells = next(reader)
            columns = [cell.strip() for cell in cells]
    except StopIteration:
        raise unusable("is empty", "write a line for each image, or remove it") from None
    except csv.Error as error:
        what = f"line {reader.line_num}: is not CSV: {error}"
        raise unusable(what, "fix the line") from None
    for wanted in (FILE_NAME, TEXT):
        if columns.count(wanted) != 1:
            found = ", ".join(columns)
            what = f'line 1: names no column "{wanted}"; found: {found}'
            if wanted in columns:
                what = f'line 1: names the column "{wanted}" twice'
            raise unusable(what, "name the columns file_name and text")
    return columns


def _csv_entries(reader: Any, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows below the first line; the last is an error where the rest cannot be read."""
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = f"is not CSV: {error}"
            fix = 'double a quotation mark inside quotation marks: "a ""dog"" asleep"'
            yield start, unusable(what, fix)
            return
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) == len(columns):
            entry = dict(zip(columns, cells, strict=True))
            yield start, entry
        else:
            what = f"has {counted(len(cells), 'cell')} for {counted(len(columns), 'column')}"
            fix = 'put text that holds commas into quotation marks: "a dog, asleep"'
            yield start, unusable(what, fix)


def _image_name(entry: Entry, files: Mapping[str, str]) -> str:
    """Return the file that an entry names; raises UnusableError when the folder has no such image."""
    name = entry.get(FILE_NAME)
    if not isinstance(name, str) or not name.strip():
        what = '"file_name" is missing'
        raise unusable(what, "name the image it belongs to")
    path = PurePosixPath(composed(name))
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


def _caption(entry: Entry) -> str:
    """Return the caption of an entry, empty when there is none; raises UnusableError."""
    text = entry.get(TEXT)
    if isinstance(text, str):
        return one_line(text)
    what = '"text" is missing'
    if TEXT in entry:
        what = '"text" is not a string'
    fix = 'add "text", or remove the line'
    others = []
    for key in entry:
        if key not in {FILE_NAME, TEXT, REPEATS}:
            others.append(key)
    if others:
        found = ", ".join(others)
        fix = f'the caption belongs under "text"; found: {found}'
    raise unusable(what, fix)


def _repeats(entry: Entry) -> int:
    """Return as how many images the entry's counts, a whole number as JSON or as text; raises UnusableError."""
    value = entry.get(REPEATS, 1)
    if value in ("", None):
        return 1
    text = str(value)
    is_number = text.isascii() and text.isdecimal() and not isinstance(value, bool)
    if not is_number or len(text) > len(str(MOST_REPEATS)) or not 1 <= int(text) <= MOST_REPEATS:
        raise unusable(
            f'"repeats" is {text[:SHOWN]}', f"write a whole number from 1 to {MOST_REPEATS}, or leave it out"
        )
    return int(text)
