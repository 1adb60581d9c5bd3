"""Putting a finished adapter in its place: whole or not at all, and never over another job's."""

import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.command_line import command
from orchestrator.errors import JobError
from orchestrator.storage import scratch_folder, sync_tree, write_atomically
from orchestrator.targets.local.job_folder import JobFolder

_OWNERS = ".owners"


def reserve(place: Path, job: JobFolder) -> None:
    """Make `job` the owner of an adapter's place before anything is spent; raises JobError when it has another.

    An owner whose job is gone, or has ended and left no adapter there, loses the place.
    """
    with _owner_file(place) as owner_file:
        owner = _read(owner_file)
        if owner != job.name:
            owning_job = JobFolder(job.path.with_name(owner)) if owner else None
            _require_free(place, owning_job)
            write_atomically(owner_file, job.name)


def withdraw(place: Path, job: JobFolder) -> None:
    """Remove the adapter of `job` and let go of its place; another job's adapter stays."""
    with _owner_file(place) as owner_file:
        if _read(owner_file) != job.name:
            return
        if place.exists():
            with scratch_folder(place.parent) as grave:
                place.rename(grave / place.name)
        owner_file.unlink()


def publish(source: Path, place: Path, job: JobFolder) -> None:
    """Verify what training left in `source` and put it at `place`; an earlier adapter of the same job gives way.

    Raises JobError when the adapter is damaged or the place is another job's.
    """
    damaged = _damage(source)
    if damaged:
        raise JobError(f"The adapter came out damaged: {damaged}.", next_step=command("jobs", "retry", job.name))
    reserve(place, job)
    with scratch_folder(place.parent) as staging:
        copy = staging / "new"
        old = staging / "old"
        shutil.copytree(source, copy)
        sync_tree(copy)
        if place.exists():
            place.rename(old)
        copy.rename(place)
    _sync_folder(place.parent)


def _require_free(place: Path, owner: JobFolder | None) -> None:
    """Raise JobError when an adapter lies at `place`, or its owner is at work on one."""
    another = "submit with another --name"
    if owner is not None and owner.is_running():
        raise JobError(
            f'The adapter name "{place.name}" is taken by the job {owner.name}, which runs.', next_step=another
        )
    if not place.exists():
        return
    if owner is not None and owner.exists():
        message = f'The adapter name "{place.name}" is taken by the job {owner.name}, which made {place}.'
        raise JobError(message, next_step=f"{another}, or: {command('jobs', 'remove', '--adapter', owner.name)}")
    message = f'The adapter name "{place.name}" is taken by {place}, which belongs to no job.'
    raise JobError(message, next_step=f"{another}, or: rm -r {shlex.quote(str(place))}")


def _damage(folder: Path) -> str:
    try:
        return ", ".join(AdapterManifest.read(folder).damaged_files(folder))
    except FileNotFoundError:
        return "it has no manifest"
    except ValueError as error:
        return f"its manifest cannot be read ({type(error).__name__})"


@contextmanager
def _owner_file(place: Path) -> Iterator[Path]:
    """Yield the file that names a place's owner; no other process reads or changes owners meanwhile."""
    owners = place.parent / _OWNERS
    owners.mkdir(parents=True, exist_ok=True)
    with (owners / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield owners / place.name


def _read(owner_file: Path) -> str | None:
    if not owner_file.exists():
        return None
    return owner_file.read_text(encoding="utf-8") or None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
