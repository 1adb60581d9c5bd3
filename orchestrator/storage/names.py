"""Check a list of file names from elsewhere before files are written to this machine's disk."""

import os
from collections.abc import Mapping
from pathlib import PurePosixPath

from orchestrator.contract.digest import FileDigest
from orchestrator.contract.problem import Problem
from orchestrator.contract.words import composed
from orchestrator.terminal import LONGEST_NAME, is_control

MAX_FILES = 100_000
MAX_BYTES = 200 * 10**9


def is_folder_name(name: str) -> bool:
    """Whether a name is that of one folder, as those of adapters and jobs are, and no path."""
    return "/" not in name and name not in {"", ".", ".."} and len(os.fsencode(name)) <= LONGEST_NAME


def unsafe_files(digests: Mapping[str, FileDigest]) -> list[Problem]:
    """Return why these files cannot be written below one folder; empty when they can."""
    sizes = {name: digest.size for name, digest in digests.items()}
    return unsafe_names(sizes)


def unsafe_names(sizes: Mapping[str, int]) -> list[Problem]:
    """Return why files of these names and sizes in bytes cannot be written below one folder."""
    where = "the list of files"
    if len(sizes) > MAX_FILES:
        what = f"it has {len(sizes)} entries; at most {MAX_FILES} are allowed"
        return [Problem(where=where, what=what)]
    smallest = min(sizes.values(), default=0)
    total = sum(sizes.values())
    if smallest < 0 or total > MAX_BYTES:
        what = f"it has negative sizes, or more than {MAX_BYTES} bytes"
        return [Problem(where=where, what=what)]
    problems = []
    for name in sizes:
        reason = _why_unsafe(name)
        if reason:
            problems.append(Problem(where=name, what=reason))
    return problems or _clashes(sizes)


def _why_unsafe(name: str) -> str:
    """Return why no file of this name is written, or an empty text."""
    if name.startswith("/"):
        return "it is an absolute path"
    for character in name:
        if is_control(character) or character in "\\:":
            return "it holds a character that some file systems do not allow"
    for part in name.split("/"):
        if part in {"", ".", ".."}:
            return "it has an empty part, or points outside its folder"
        if len(part.encode()) > LONGEST_NAME:
            return "a part of it is too long"
    return ""


def _clashes(names: Mapping[str, int]) -> list[Problem]:
    """Return a name that equals another where case is ignored, or one that needs a file to be a folder too."""
    files: dict[str, str] = {}
    for name in names:
        folded = _folded(name)
        other = files.setdefault(folded, name)
        if other != name:
            what = f'it is the same file as "{other}" on some file systems'
            return [Problem(where=name, what=what)]
    for name in names:
        for folder in PurePosixPath(name).parents:
            folded = _folded(str(folder))
            file = files.get(folded)
            if file is not None:
                what = f'"{file}" is a file and cannot also be its folder'
                return [Problem(where=name, what=what)]
    return []


def _folded(name: str) -> str:
    """Return what a file system compares that ignores case and normal forms."""
    folded = composed(name).casefold()
    return composed(folded)
