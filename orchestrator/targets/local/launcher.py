"""What starts, stops and kills the thing that trains: the part in which local targets differ.

Everything else of a local job is a folder (`LocalJobs`). A launcher is used by two kinds of process: the worker, which
starts an attempt and waits for it, and any client, which stops or kills it later. They share the launcher by its
name and the running attempt by its handle, a text that lies in the job's folder.
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
    """Folder for what is worth keeping between jobs."""
    lock_descriptor: int
    """The job's lock. What is started has to hold it until the training has ended, also when the worker is killed."""


class Launched(NamedTuple):
    """An attempt that runs."""

    handle: str
    """What `stop` and `kill` know it by, in any process."""
    lines: Iterable[str]
    """What it prints, with line ends, until it ends."""
    wait: Callable[[], int]
    """Waits for its end and returns its exit code; a negative one is the signal that ended it."""


class Launcher(Protocol):
    """Starts, stops and kills the thing that trains. Made without arguments."""

    def require_machine(self) -> None:
        """Raise MachineError when this machine lacks what the launcher needs."""

    def start(self, launch: Launch) -> Launched:
        """Start an attempt and return without waiting for it."""

    def stop(self, handle: str) -> None:
        """Ask for a checkpoint and the end (SIGTERM); does nothing when it has ended."""

    def kill(self, handle: str) -> None:
        """End it at once (SIGKILL); does nothing when it has ended."""


def name_of(launcher: Launcher) -> str:
    """Return the name by which the worker finds a launcher: "module:class"."""
    kind = type(launcher)
    return f"{kind.__module__}:{kind.__qualname__}"


def launcher_named(name: str) -> Launcher:
    """Return a new launcher of that name."""
    launcher: Launcher = pkgutil.resolve_name(name)()
    return launcher
