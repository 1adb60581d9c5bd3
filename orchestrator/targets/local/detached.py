"""What it takes to start, and to listen to, a process of this package that outlives the command which starts it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from orchestrator.resources import PACKAGE

_POLL_SECONDS = 0.1


def import_path() -> str:
    """Return the PYTHONPATH of such a process: this package first, whatever else is installed."""
    folders = [str(PACKAGE.parent)]
    inherited = os.environ.get("PYTHONPATH")
    if inherited:
        folders.append(inherited)
    return os.pathsep.join(folders)


@contextmanager
def blocked_ctrl_c() -> Iterator[None]:
    """Delay a Ctrl-C while it would leave behind what was never started."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def printed_lines(log: IO[bytes], goes_on: Callable[[], bool]) -> Iterator[str]:
    """Yield the whole lines of a log from where it stands, and new ones as long as its process goes on."""
    open_line = b""
    while True:
        more = goes_on()  # before reading, so that the last lines are not missed
        while chunk := log.readline():
            open_line += chunk
            if chunk.endswith(b"\n"):
                yield open_line.decode(errors="replace").rstrip("\n")
                open_line = b""
        if not more:
            return
        time.sleep(_POLL_SECONDS)
