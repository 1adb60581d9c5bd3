"""Files and folders of this machine that are whole or absent, whenever the process ends."""

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
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_new(path: Path, text: str) -> bool:
    """Write a file that is whole or absent; return False, and change nothing, when there is one."""
    with scratch_folder(path.parent) as folder:
        draft = folder / "draft"
        write_atomically(draft, text)
        try:
            path.hardlink_to(draft)  # unlike a rename, never over another file
        except FileExistsError:
            return False
    return True


def to_json(value: object) -> str:
    """Return the one text a value has in a store: equal values, equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder in `parent`, from which a rename goes to any place of that disk; it is gone afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def arriving(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block ends well, and is gone when it does not.

    Raises MachineError when something is at `folder` already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MachineError(f"{folder} is in the way.", next_step="name a folder that is new or empty: --to FOLDER")
    with scratch_folder(folder.parent) as scratch:
        draft = scratch / "content"
        draft.mkdir()
        yield draft
        sync_tree(draft)
        draft.rename(folder)


def sync_tree(folder: Path) -> None:
    """Put every file of a folder on the disk itself, so that a rename after it means that all is there."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def sweep(parent: Path, now: float) -> None:
    """Remove the scratch folders that killed processes left in `parent`; one of the last day may be in use."""
    for folder in parent.glob(f"{_SCRATCH}*"):
        try:
            abandoned = now - folder.stat().st_mtime > _ABANDONED_SECONDS
        except FileNotFoundError:  # its owner has just removed it
            continue
        if abandoned:
            shutil.rmtree(folder, ignore_errors=True)
