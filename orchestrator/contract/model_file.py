"""Read one file of a model that somebody else wrote: nothing large is parsed, and what is wrong is said in words."""

import json
import os
from pathlib import Path
from typing import Any

from orchestrator.contract.problem import Problem

MAX_TEXT_BYTES = 32_000_000
"""Largest file of text that is read; the largest vocabularies in use have half of that."""
BASE_MODEL = "base_model"
"""The field of a recipe that names it."""
AGAIN = "download it again"
ANOTHER = "choose another base model"
ONE_MODEL = "take all parts of one model"
_MOST_CHARACTERS = 300  # of a message that quotes a value
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_IN_ITS_PLACE = {
    b"<html": "is a web page, not the file itself",
    b"<!doctype": "is a web page, not the file itself",
    b"pk\x03\x04": "is a pickle of torch or an archive, whatever its name says",
}
"""What failed downloads and renamed files begin with, in lower case."""
_START_BYTES = max(len(start) for start in (LFS_POINTER, *_IN_ITS_PLACE))


def model_problem(what: str, fix: str = AGAIN) -> Problem:
    """Return something that is wrong with a base model; what a hostile file says in it is cut."""
    return Problem(where=BASE_MODEL, what=what[:_MOST_CHARACTERS], fix=fix)


class ModelFileError(ValueError):
    """A file of a model cannot be used; the text says why, without its name, and what it quotes is cut."""

    def __init__(self, what: str, fix: str = AGAIN) -> None:
        self.what = what[:_MOST_CHARACTERS]
        super().__init__(self.what)
        self.fix = fix


def require_readable(path: Path) -> int:
    """Return the size of a file in bytes; raises ModelFileError when it is not the file that its name promises."""
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "a device or a pipe"
            raise ModelFileError(f"is {kind}, not a file")
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ModelFileError(f"is a link to {path.readlink()}, which does not exist") from error
        raise ModelFileError("does not exist") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelFileError(f"cannot be read: {reason}", "check its permissions") from error
    if not size:
        raise ModelFileError("is empty")
    if start.startswith(LFS_POINTER):
        raise ModelFileError("is a git-LFS pointer, not the file itself", "in the model's folder: git lfs pull")
    for signature, what in _IN_ITS_PLACE.items():
        if start.lower().startswith(signature):
            raise ModelFileError(what)
    return size


def read_text_bytes(path: Path) -> bytes:
    """Return what a file of text holds; raises ModelFileError for one that is too large or cannot be read."""
    if require_readable(path) > MAX_TEXT_BYTES:
        raise ModelFileError(f"has more than {MAX_TEXT_BYTES // 1_000_000} MB, which no file of this name has")
    return path.read_bytes()


def read_text(path: Path) -> str:
    """Return what a file of text holds; raises ModelFileError for one that is too large or no text."""
    content = read_text_bytes(path)
    return _decoded(content)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file; raises ModelFileError."""
    content = read_text_bytes(path)
    return parse_object(content)


def parse_object(content: bytes) -> dict[str, Any]:
    """Return a JSON object; raises ModelFileError for anything else."""
    text = _decoded(content)
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ModelFileError("cannot be read as JSON: it is nested too deeply") from error
    except ValueError as error:
        if content.startswith(b"\xef\xbb\xbf"):
            fix = f"save it without, or {AGAIN}"
            raise ModelFileError("begins with a byte order mark, which JSON must not have", fix) from error
        raise ModelFileError(f"cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelFileError("holds no JSON object")
    return found


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFileError("is not UTF-8 text", f"save it as UTF-8, or {AGAIN}") from error
