"""The standard streams, as commands can rely on them whatever a shell, cron or a daemon passed on."""

import os
import sys
from io import TextIOWrapper

_STANDARD = (0, 1, 2)
"""The descriptors of stdin, stdout and stderr."""


def open_streams() -> None:
    """Open the standard streams that are closed on the null device, and write any character to those that are open.

    Otherwise the next file that is opened takes the number of a closed stream, and a child that is given that stream
    loses the file, which may be the lock of a job. Characters that the encoding lacks are written as escapes.
    """
    for descriptor in _STANDARD:
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(descriptor, True)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # stderr does so from the start


def drop_unwritten() -> None:
    """Drop what a full disk or a closed pipe does not take: Python would fail once more when it flushes at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
