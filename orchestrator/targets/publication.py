"""Putting a finished adapter in its place: whole or not at all, and never over another job's."""

import os
import shutil
import tempfile
from pathlib import Path

from orchestrator.contract.adapter import AdapterManifest
from orchestrator.errors import JobError
from orchestrator.storage import sync_tree

_OWNERS = ".owners"


def reserve(place: Path, job: str) -> None:
    """Make `job` the owner of an adapter's place before anything is spent; raises JobError when it has another."""
    owner_file = _owner_file(place)
    owner_file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with owner_file.open("x", encoding="utf-8") as file:
            file.write(job)
    except FileExistsError:
        owner = owner_file.read_text(encoding="utf-8")
        if owner != job:
            raise JobError(
                f'The adapter name "{place.name}" is taken by the job {owner}.', next_step="submit with another --name"
            ) from None
        return
    if place.exists():
        owner_file.unlink()
        raise JobError(f"{place} is in the way and is no job's adapter.", next_step="submit with another --name")


def publish(source: Path, place: Path, job: str) -> None:
    """Verify what training left in `source` and put it at `place`; an earlier adapter of the same job gives way.

    Raises JobError when the adapter is damaged or the place is another job's.
    """
    damaged = _damage(source)
    if damaged:
        raise JobError(
            f"The adapter came out damaged: {damaged}.", next_step=f"python -m orchestrator jobs retry {job}"
        )
    reserve(place, job)
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=place.parent, ignore_cleanup_errors=True) as staging:
        copy, old = Path(staging) / "new", Path(staging) / "old"
        shutil.copytree(source, copy)
        sync_tree(copy)
        if place.exists():
            place.rename(old)
        copy.rename(place)
    _sync_folder(place.parent)


def _damage(folder: Path) -> str:
    try:
        return ", ".join(AdapterManifest.read(folder).damaged_files(folder))
    except FileNotFoundError:
        return "it has no manifest"
    except ValueError as error:
        return f"its manifest cannot be read ({type(error).__name__})"


def _owner_file(place: Path) -> Path:
    return place.parent / _OWNERS / place.name


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
