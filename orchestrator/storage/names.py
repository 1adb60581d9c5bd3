"""What may be written to this machine's disk from a list of names that somebody else made."""

import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath

from orchestrator.contract.digest import FileDigest
from orchestrator.contract.problem import Problem

MOST_FILES = 100_000
MOST_BYTES = 200 * 10**9
_LONGEST_PART = 255  # bytes, of every file system in use


def unsafe_files(digests: Mapping[str, FileDigest]) -> list[Problem]:
    """Return what speaks against writing these files below one folder."""
    return unsafe_names({name: digest.size for name, digest in digests.items()})


def unsafe_names(sizes: Mapping[str, int]) -> list[Problem]:
    """Return what speaks against writing files of these names and sizes below one folder, all of it."""
    if len(sizes) > MOST_FILES:
        return [Problem(where="the list of files", what=f"it has {len(sizes)} entries; {MOST_FILES} is the most")]
    if min(sizes.values(), default=0) < 0 or sum(sizes.values()) > MOST_BYTES:
        return [Problem(where="the list of files", what=f"more than {MOST_BYTES} bytes, or fewer than none")]
    problems = [Problem(where=name, what=fault) for name in sizes if (fault := _fault(name))]
    return problems or _clashes(sizes)


def _fault(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/") or any(part in {"", ".", ".."} for part in parts):
        return "it leads out of its folder, or to nowhere"
    if "\\" in name or ":" in name or any(unicodedata.category(char) in {"Cc", "Cs"} for char in name):
        return "it holds a character that is no part of a file's name everywhere"
    if any(len(part.encode()) > _LONGEST_PART for part in parts):
        return "a part of it is too long"
    return ""


def _clashes(names: Mapping[str, int]) -> list[Problem]:
    """Return the names that are one file to a file system that ignores case, or file and folder at once."""
    files: dict[str, str] = {}
    for name in names:
        if (other := files.setdefault(_folded(name), name)) != name:
            return [Problem(where=name, what=f'it cannot lie beside "{other}" on every file system')]
    for name in names:
        for folder in PurePosixPath(name).parents:
            if (other := files.get(_folded(str(folder)), "")) != "":
                return [Problem(where=name, what=f'"{other}" is a file, and cannot hold it')]
    return []


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
