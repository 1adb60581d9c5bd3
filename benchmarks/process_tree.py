"""What a command takes together with everything it starts, also what outlives the process that started it."""

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PR_SET_CHILD_SUBREAPER = 36
"""Number of the request in Linux's prctl.h."""
NOT_STARTED = 127
"""Exit code of a command that does not exist, as shells have it."""


class Usage(NamedTuple):
    """What a command took."""

    began: float
    """When it was started, in seconds since 1970."""
    wall_seconds: float
    """Until the last of its processes had ended."""
    cpu_seconds: float
    """Of all its processes, in the kernel too."""
    peak_bytes: int
    """Resident memory of its largest process."""
    marked: float | None
    """Seconds until the command printed the mark; None if it never did."""
    output: bytes
    """What it printed to stdout and stderr."""
    exit_code: int


def measure(command: list[str], variables: Mapping[str, str], folder: Path, mark: bytes = b"") -> Usage:
    """Run a command in a folder and wait until all its processes have ended, the detached ones too.

    Linux only. A process between this one and the command adopts what the command leaves behind, as init would
    otherwise, and so the kernel adds it to the usage of the children of that process.
    https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html
    """
    output_end, input_end = os.pipe()
    usage_end, report_end = os.pipe()
    began = time.time()
    started = time.perf_counter()
    reaper = os.fork()
    if reaper == 0:
        _run_and_reap(command, variables, folder, input_end, report_end)
    os.close(input_end)
    os.close(report_end)
    output = b""
    marked = None
    while chunk := os.read(output_end, 65_536):
        output += chunk
        if mark and marked is None and mark in output:
            marked = time.perf_counter() - started
    with os.fdopen(usage_end) as report:
        exit_code, cpu_seconds, peak_bytes = report.read().split()
    os.waitpid(reaper, 0)
    wall_seconds = time.perf_counter() - started
    os.close(output_end)
    return Usage(began, wall_seconds, float(cpu_seconds), int(peak_bytes), marked, output, int(exit_code))


def _run_and_reap(command: list[str], variables: Mapping[str, str], folder: Path, output: int, report: int) -> None:
    """Run the command in this process, which was made for it; never returns."""
    try:
        exit_code = _run(command, variables, folder, output)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = used.ru_utime + used.ru_stime
        peak_bytes = used.ru_maxrss * 1024  # Linux counts in KiB
        os.write(report, f"{exit_code} {cpu_seconds} {peak_bytes}".encode())
    finally:
        os._exit(0)


def _run(command: list[str], variables: Mapping[str, str], folder: Path, output: int) -> int:
    """Run the command until it and all that it left behind have ended; return its exit code."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        process = subprocess.Popen(
            command,
            env={**os.environ, **variables},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    except OSError as error:
        os.write(output, str(error).encode())
        return NOT_STARTED
    os.close(output)  # what is left of it belongs to the command
    exit_code = process.wait()
    with suppress(ChildProcessError):  # raised when none is left
        while True:
            os.wait()
    return exit_code
