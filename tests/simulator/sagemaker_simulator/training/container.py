"""The container: a process group of this machine that is started, signalled and outlived like one."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .layout import Layout

PROGRAMS = {"/usr/local/bin/start-job": Path(__file__).parents[4] / "containers" / "start.py"}
"""Python programs of the training image by their paths in it, and where they lie here."""

SERVE = ("python", "-m", "entrypoints.serve")
"""The entry of this project's inference image."""


@dataclass(frozen=True)
class Image:
    """How a container image is run on this machine."""

    python: str = sys.executable
    """Stands in for `python` and `python3`."""
    entrypoint: tuple[str, ...] = ()
    """The image's own, for jobs that bring none; the service adds `train`, or `serve` on an endpoint.

    Empty, an image serves with `SERVE`.
    """
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that are baked in."""
    toolkit: bool = True
    """Whether the image has AWS's training toolkit, which sets the SM_* variables."""
    every_host: bool = False
    """Whether all hosts of a job run, and not the first alone; they have no addresses, and cannot find one another."""

    def command(self, algorithm: Mapping[str, list[str]], layout: Layout) -> list[str]:
        """Return the words of the process for a job's AlgorithmSpecification."""
        own = [*self.entrypoint, "train"]
        words = [*(algorithm.get("ContainerEntrypoint") or own), *algorithm.get("ContainerArguments", [])]
        words = [layout.here(word) for word in words]
        start = []
        if words[0] in PROGRAMS:
            start = [sys.executable, "-I", str(PROGRAMS[words[0]])]
            words = words[1:]
        return [*start, *self._with_python(words)]

    def serving_command(self) -> list[str]:
        """Return the words of the process on an endpoint, for which requests have none of their own."""
        return self._with_python([*(self.entrypoint or SERVE), "serve"])

    def _with_python(self, words: list[str]) -> list[str]:
        return [self.python if words[0] in {"python", "python3"} else words[0], *words[1:]]


class Container:
    """One run. What it leaves behind, and whoever it started, ends with it."""

    def __init__(self, command: list[str], variables: Mapping[str, str], folder: Path) -> None:
        self._process = subprocess.Popen(
            command,
            env=dict(variables),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._gone = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def watch(
        self,
        on_line: Callable[[str], None],
        on_exit: Callable[[int], None],
        guarded: Callable[[Callable[[], None]], None],
    ) -> None:
        """Hand over each line and, after the last one, the exit code; `guarded` takes care of errors."""
        reader = threading.Thread(
            target=guarded, args=(lambda: self._read(on_line),), name="container-log", daemon=True
        )

        def wait() -> None:
            code = self._wait_for_exit()
            reader.join()
            on_exit(code)

        waiter = threading.Thread(target=guarded, args=(wait,), name="container-exit", daemon=True)
        self._threads = [reader, waiter]
        for thread in self._threads:
            thread.start()

    def terminate(self) -> None:
        """Ask the first process of the container to end."""
        self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """End the whole container at once."""
        self._signal(os.killpg, signal.SIGKILL)

    def join(self) -> None:
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _read(self, on_line: Callable[[str], None]) -> None:
        stdout = self._process.stdout
        if stdout is None:
            return
        with stdout:
            for line in stdout:
                on_line(line.rstrip("\n"))

    def _wait_for_exit(self) -> int:
        # Not reaped yet: while the first process is a zombie its group's number belongs to nobody else.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._signal(os.killpg, signal.SIGKILL)
        with self._lock:
            self._gone = True
            code = self._process.wait()
        return 128 - code if code < 0 else code

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        with self._lock:
            if not self._gone:
                with suppress(ProcessLookupError, PermissionError):
                    send(self.pid, number)
