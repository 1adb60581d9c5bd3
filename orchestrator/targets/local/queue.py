"""The order in which jobs run on this machine.

Each attempt takes a ticket: a numbered file, locked as long as the worker or what its launcher started is alive. An
attempt that waits for its turn waits for the locks of all lower numbers, so first come is first served. A number is
never waited for by a lower one, so nobody waits in a circle; and the kernel releases the locks of whatever ends, by
itself, by a kill, or by a restart of the machine.
"""

import fcntl
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Self

from orchestrator.errors import JobError

_NAME = re.compile(r"[0-9]{8,12}")
"""How tickets are called."""


class Turn(StrEnum):
    """When a job starts."""

    ALONE = "alone"
    """At once; refused while another job runs or waits on this machine."""
    QUEUED = "queued"
    """After all jobs before it have ended."""
    TOGETHER = "together"
    """At once, beside other jobs."""


class Ticket:
    """A place in the queue, kept until the file is closed here and in every process that inherited it."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path = path
        self.file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the place up, unless another process has inherited it."""
        self.file.close()


class Queue:
    """The tickets of all jobs of this machine, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, job: str) -> Ticket:
        """Return the next ticket, for an attempt of a job."""
        with self._changing():
            self._drop_old()
            last = max(map(_number, self._numbered()), default=0)
            path = self.folder / f"{last + 1:08d}"
            file = path.open("w", encoding="utf-8")
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(job)
            file.flush()
            return Ticket(path, file)

    def jobs(self) -> list[str]:
        """Return the names of the jobs that have not ended, in their order."""
        return _holders(self._tickets())

    def jobs_before(self, ticket: Path) -> list[str]:
        """Return the names of the jobs with lower tickets that have not ended, in their order."""
        return _holders(self._before(ticket))

    def wait_for_turn(self, ticket: Path) -> None:
        """Wait until every job with a lower ticket has ended; the kernel wakes this process, which does not poll."""
        for path in self._before(ticket):
            try:
                with path.open(encoding="utf-8") as file:
                    fcntl.flock(file, fcntl.LOCK_SH)
            except FileNotFoundError:  # it has ended, and its ticket was dropped
                continue

    def _before(self, ticket: Path) -> list[Path]:
        return [path for path in self._tickets() if _number(path) < _number(ticket)]

    def _tickets(self) -> list[Path]:
        """Return all tickets in their order; whatever else lies there is none."""
        return [path for path in self._numbered() if path.is_file()]

    def _numbered(self) -> list[Path]:
        """Return what has the name of a ticket, in the order of the numbers."""
        found = [path for path in self.folder.glob("[0-9]*") if _NAME.fullmatch(path.name)]
        return sorted(found, key=_number)

    def _drop_old(self) -> None:
        """Delete the tickets of attempts that have ended. No ticket is being taken: the caller excludes that."""
        for path in self._tickets():
            if not _is_held(path):
                path.unlink()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep other processes from taking or dropping tickets; raises JobError when it cannot."""
        path = self.folder / "lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
        except IsADirectoryError as error:
            raise _in_the_way(path) from error
        except FileExistsError as error:
            raise _in_the_way(self.folder) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _in_the_way(path: Path) -> JobError:
    quoted = shlex.quote(str(path))
    return JobError(f"The queue of jobs cannot be used: {path} is in its way.", next_step=f"rm -r {quoted}")


def _number(ticket: Path) -> int:
    return int(ticket.name)


def _holders(tickets: Iterable[Path]) -> list[str]:
    names = []
    for path in tickets:
        if _is_held(path):
            names.append(path.read_text(encoding="utf-8"))
    return names


def _is_held(ticket: Path) -> bool:
    try:
        with ticket.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
