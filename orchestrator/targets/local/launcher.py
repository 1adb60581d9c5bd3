"""A launcher starts, stops and kills the training: the part in which local targets differ.

The rest of a local job is a folder (`LocalJobs`). Two kinds of process use a launcher: the worker, which starts an
attempt and waits for it, and any client, which stops or kills it later. They share the launcher by its name, and the
running attempt by its handle, a text in the job's folder.
"""

import pkgutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from orchestrator.contract.environment import Environment
from orchestrator.requests import Request


class Launch(NamedTuple):
    """What a launcher needs to start an attempt."""

    request: Request
    """The job's CreateTrainingJob request: its entry point and its environment variables."""
    environment: Environment
    """The job's `/opt/ml`, laid out."""
    cache: Path
    """Folder for files that jobs share, such as downloads."""
    held: tuple[int, ...]
    """Descriptors of the job's lock and ticket. The training has to hold them until it has ended, also when the worker
    is killed."""


class Launched(NamedTuple):
    """A running attempt."""

    handle: str
    """Identifies it to `stop` and `kill`, in any process."""
    lines: Iterable[str]
    """The lines it prints, with line ends, until it ends."""
    wait: Callable[[], int]
    """Waits for its end and returns its exit code; a negative one is the signal that ended it."""


class Launcher(Protocol):
    """Starts, stops and kills the training. Constructed without arguments."""

    def require_machine(self) -> None:
        """Raise MachineError when this machine lacks what the launcher needs."""

    def start(self, launch: Launch) -> Launched:
        """Start an attempt and return without waiting for it."""

    def stop(self, handle: str) -> None:
        """Ask it to save a checkpoint and end (SIGTERM). Idempotent; does nothing once it has ended."""

    def kill(self, handle: str) -> None:
        """End it at once (SIGKILL). Idempotent; does nothing once it has ended."""


def name_of(launcher: Launcher) -> str:
    """Return the name of a launcher for the worker: "module:class"."""
    kind = type(launcher)
    return f"{kind.__module__}:{kind.__qualname__}"


def launcher_named(name: str) -> Launcher:
    """Return a new launcher of that name."""
    kind = pkgutil.resolve_name(name)
    launcher: Launcher = kind()
    return launcher
