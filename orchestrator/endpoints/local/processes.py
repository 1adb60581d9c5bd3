"""A process by its number and its start, so that another one which was given the number is never taken for it."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_PROC = Path("/proc")
_STATE, _START = 0, 19
"""Fields of /proc/PID/stat behind the name: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""


class Process(BaseModel):
    """A process of this machine, alive or not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int = Field(gt=1)
    """Its number."""
    started: str
    """When it started, in the words of the system."""

    @classmethod
    def now(cls, pid: int) -> "Process":
        """Return the living process of a number."""
        return cls(pid=pid, started=_start_of(pid) or "")

    @property
    def is_alive(self) -> bool:
        """Whether it is this process that has the number."""
        return self.started != "" and _start_of(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal; does nothing once the process has ended."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _start_of(pid: int) -> str | None:
    """Return when a process started; None for one that has ended."""
    if not _PROC.joinpath("self").exists():  # macOS
        shown = subprocess.run(
            ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return shown.stdout.strip() or None
    try:
        stat = (_PROC / str(pid) / "stat").read_text(
            encoding="utf-8",
            errors="replace",
        )
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name may have spaces and brackets
    if fields[_STATE] == "Z":  # it has ended, and its parent has not asked how
        return None
    return f"{boot.strip()} {fields[_START]}"
