"""Files and folders of this machine that are complete or absent, whenever the process ends."""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import MachineError

_SCRATCH = ".scratch-"
_ABANDONED_SECONDS = 24 * 3600.0


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file so that a reader sees the old content or the new one, and never a part."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{os.getpid()}.{threading.get_ident()}"
    draft = path.with_name(f".{path.name}.{writer}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_new(path: Path, text: str) -> bool:
    """Write a file that is complete or absent; return False, and change nothing, when it exists."""
    with scratch_folder(path.parent) as folder:
        draft = folder / "draft"
        write_atomically(draft, text)
        try:
            path.hardlink_to(draft)  # unlike a rename, never replaces a file
        except FileExistsError:
            return False
    return True


def to_json(value: object) -> str:
    """Return the one text a value has in a store: equal values, equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    return f"{text}\n"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder in `parent`, so on the same disk, from which files can be renamed; it is removed after."""
    parent.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.TemporaryDirectory(
        prefix=_SCRATCH,
        dir=parent,
        ignore_cleanup_errors=True,
    )
    with scratch as folder:
        yield Path(folder)


@contextmanager
def complete_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block succeeds, and is removed when it fails.

    Raises MachineError when `folder` exists and is not an empty folder.
    """
    if folder.exists():
        is_empty_folder = folder.is_dir() and not any(folder.iterdir())
        if not is_empty_folder:
            next_step = "name a folder that is new or empty: --to FOLDER"
            raise MachineError(f"{folder} exists and is not empty.", next_step=next_step)
    with scratch_folder(folder.parent) as scratch:
        draft = scratch / "content"
        draft.mkdir()
        yield draft
        sync_tree(draft)
        draft.rename(folder)


def sync_tree(folder: Path) -> None:
    """Flush every file of a folder to the disk, so that a rename after it implies complete files."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def remove_abandoned(parent: Path, now: float) -> None:
    """Remove the scratch folders that killed processes left in `parent`; those of the last day may be in use.

    `now` is in seconds since the epoch.
    """
    for folder in parent.glob(f"{_SCRATCH}*"):
        try:
            age = now - folder.stat().st_mtime
        except FileNotFoundError:  # its owner has just removed it
            continue
        if age > _ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
