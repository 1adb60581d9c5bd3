"""How a process of a job begins and ends quickly: imports without the garbage collector, an end without teardown."""

import gc
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

_STDOUT = 1  # its descriptor


def run(main: Callable[[], int]) -> NoReturn:
    """Run the `main` of this process and end the process with the status that it returns.

    The collector pauses until `resume_collector`. Importing torch and diffusers makes hundreds of thousands of objects
    that stay, and Python would look through all of them again and again: a quarter of the time of the imports.

    The process ends without Python's teardown, which frees each of those objects for more than a second, while somebody
    waits for the job; the system frees all of them at once. Handlers of `atexit` do not run.
    """
    gc.disable()
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # its reader is gone
            stream.flush()
    os._exit(status)


def require_reader() -> None:
    """Raise BrokenPipeError when nobody reads any more what this process prints.

    A process that prints nothing for hours would not notice that the one which records its job was killed.
    """
    poll = select.poll()
    poll.register(_STDOUT, 0)  # errors are told without being asked for
    if poll.poll(0):
        raise BrokenPipeError("nobody reads the events of this process")


def resume_collector() -> None:
    """Collect garbage again, but never look at what exists now; does nothing unless `run` has paused the collector."""
    if gc.isenabled():
        return
    gc.freeze()
    gc.enable()
