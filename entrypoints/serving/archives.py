"""Adapters that come as .tar.gz, as SageMaker's adapter components have them: unpacked by a rule of our own.

Only plain files with plain names are written, of the kinds that an adapter has. What an archive says of owners, modes
and links is never followed: filters of `tarfile` have been escaped before.
"""

import re
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from entrypoints.runtime.failures import TrainingError, is_disk_full
from entrypoints.serving.low_rank_file import KIND

MOST_FILES = 512
MOST_BYTES = 2**32
DEEPEST = 4
"""Folders below one another."""
SUFFIXES = (".safetensors", ".json", ".png", ".md", ".txt")
"""Of the files that an adapter may have: none of them is ever run."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_BLOCK = 2**20
_MOST_DESCRIBED = 2**16
"""Bytes of what an archive says of an entry, its long name for example: `tarfile` reads that into memory."""


class _Entry(tarfile.TarInfo):
    """An entry whose description is small."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Read what comes behind a header; `tarfile` calls this for each (see TarInfo in its source)."""
        if not self.isreg() and self.size > _MOST_DESCRIBED:
            raise TrainingError(
                KIND,
                f"It describes an entry in {self.size:,} bytes.",
                "pack the adapter again",
            )
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found


def unpack(
    archive: Path,
    folder: Path,
    most_bytes: int = MOST_BYTES,
) -> None:
    """Write the files of an archive into an empty folder.

    What was written until an error stays: unpack into a folder that is thrown away. Raises TrainingError("adapter") for
    an archive that is no adapter's, and TrainingError("disk-full").
    """
    most = min(MOST_BYTES, most_bytes)
    try:
        # One entry after the other, so that sizes are counted as they come.
        with tarfile.open(archive, "r|gz", tarinfo=_Entry) as stream:
            _write(stream, folder, most)
    except (tarfile.TarError, zlib.error, EOFError, OSError, RecursionError, ValueError) as error:
        if is_disk_full(error):
            raise disk_full(archive.name) from error
        raise TrainingError(
            KIND,
            f"{archive.name} cannot be unpacked: {error}",
            "pack the adapter again",
        ) from error


def disk_full(name: str) -> TrainingError:
    """Return the failure of an archive for which the disk has no room."""
    return TrainingError(
        "disk-full",
        f"The disk is full: {name} cannot be unpacked.",
        "free space on the machine of the server, or register fewer archives",
    )


def _write(
    stream: tarfile.TarFile,
    folder: Path,
    most: int,
) -> None:
    files = 0
    written = 0
    for entry in stream:
        files += 1  # folders too: an archive of nothing else would go on for ever
        if entry.isdir() and files <= MOST_FILES:
            continue
        if files > MOST_FILES:
            raise TrainingError(
                KIND,
                f"It has more than {MOST_FILES} files.",
                "pack the adapter's folder alone",
            )
        place = place_of(entry)
        source = stream.extractfile(entry)
        path = folder / place
        if source is None or path.exists():
            raise TrainingError(
                KIND,
                f'"{entry.name}" is there twice, or no file.',
                "pack the adapter again",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        written += copy(source, path, most - written, most)


def place_of(entry: tarfile.TarInfo) -> PurePosixPath:
    """Return where a file goes; raises TrainingError("adapter") for anything but a plain file with a plain name."""
    place = PurePosixPath(entry.name)
    parts = [part for part in place.parts if part != "."]
    is_plain = entry.isreg() and not place.is_absolute() and 0 < len(parts) <= DEEPEST
    if not is_plain or not all(_NAME.fullmatch(part) for part in parts):
        raise TrainingError(
            KIND,
            f"{entry.name!r} is no plain file with a plain name.",
            "pack the adapter's files alone",
        )
    if place.suffix not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise TrainingError(
            KIND,
            f"{entry.name!r} is none of {allowed}.",
            "pack the adapter's files alone",
        )
    return PurePosixPath(*parts)


def copy(
    source: IO[bytes],
    path: Path,
    left: int,
    most: int,
) -> int:
    """Write what is read from `source` and return its bytes; raises TrainingError("adapter") above `left` of `most`."""
    size = 0
    with path.open("xb") as file:
        while block := source.read(_BLOCK):
            size += len(block)
            if size > left:
                raise TrainingError(
                    KIND,
                    f"It unpacks to more than {most:,} bytes.",
                    "check the archive",
                )
            file.write(block)
    return size
