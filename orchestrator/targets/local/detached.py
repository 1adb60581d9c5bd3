"""What it takes to start a process of this package that outlives the command which starts it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.resources import PACKAGE


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
