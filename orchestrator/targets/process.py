"""Jobs as processes on this machine: needs nothing but Python and the `train` extra."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from orchestrator.errors import JobError, MachineError
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.base import JobDescription
from orchestrator.targets.job_folder import JobFolder

_POLL_SECONDS = 0.1
_LOCK_SECONDS = 10.0  # a killed worker's training process ends with its next line of output
_MIN_FREE_BYTES = 500_000_000


class ProcessTarget:
    """Runs a request as a detached process whose state is a folder."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def create(self, request: Request) -> None:
        """Start a job; raises JobError when one of that name exists."""
        self._check_machine()
        folder = self.settings.jobs / request["TrainingJobName"]
        folder.mkdir(parents=True, exist_ok=True)
        job = JobFolder(folder)
        with self._lock(job) as lock:
            if (folder / "request.json").exists():
                raise JobError(f"The job {job.name} exists.", next_step=f"python -m orchestrator jobs show {job.name}")
            job.write_request(request)
            self._start_worker(job, lock)

    def resume(self, name: str) -> None:
        """Start an ended job again from its newest checkpoint, with the request and the code it was submitted with."""
        self._check_machine()
        job = self._job(name)
        with self._lock(job) as lock:
            job.clear_stop()
            self._start_worker(job, lock)

    def discard(self, name: str) -> None:
        """Forget an ended job and all its files but the adapter."""
        job = self._job(name)
        with self._lock(job):
            (job.path / "request.json").unlink()  # from here on it is no job any more
            shutil.rmtree(job.path)

    def describe(self, name: str) -> JobDescription:
        """Return what is known of a job; raises JobError when there is none."""
        return self._job(name).describe()

    def request(self, name: str) -> Request:
        """Return the request a job was created with."""
        return self._job(name).request()

    def names(self) -> list[str]:
        """Return the names of all jobs, the oldest first."""
        requests = self.settings.jobs.glob("*/request.json")
        return [path.parent.name for path in sorted(requests, key=lambda path: path.stat().st_mtime)]

    def stop(self, name: str) -> None:
        """Ask a job to save a checkpoint and end; returns at once."""
        job = self._job(name)
        if not job.is_running():
            return
        job.request_stop()
        state = job.state()
        if state and state.worker_pid and not state.status.is_final:
            _terminate(state.worker_pid)

    def log_lines(self, name: str, *, follow: bool) -> Iterator[str]:
        """Yield the log from its beginning, and go on with new lines until the job ends if `follow`."""
        job = self._job(name)
        job.log.touch()
        with job.log.open(errors="replace") as log:
            while True:
                running = follow and job.is_running()  # before reading, so that the last lines are not missed
                yield from _complete_lines(log)
                if not running:
                    return
                time.sleep(_POLL_SECONDS)

    def wait_for_end(self, name: str, seconds: float) -> bool:
        """Wait until the job has ended, `seconds` at most; return whether it has."""
        job = self._job(name)
        deadline = time.monotonic() + seconds
        while job.is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def checkpoint_step(self, name: str) -> int | None:
        """Return the optimizer steps of the newest checkpoint, or None when there is none."""
        return self._job(name).checkpoint_step()

    def _job(self, name: str) -> JobFolder:
        folder = self.settings.jobs / name
        if folder.parent != self.settings.jobs or not (folder / "request.json").is_file():
            raise JobError(f'There is no job "{name}".', next_step="python -m orchestrator jobs list")
        return JobFolder(folder)

    def _lock(self, job: JobFolder) -> IO[str]:
        lock = job.lock(_LOCK_SECONDS)
        if lock is None:
            raise JobError(
                f"The job {job.name} is running already.", next_step=f"python -m orchestrator jobs logs -f {job.name}"
            )
        return lock

    def _start_worker(self, job: JobFolder, lock: IO[str]) -> None:
        descriptor = lock.fileno()
        words = (job.path, descriptor, self.settings.cache)
        command = [sys.executable, "-m", "orchestrator.targets.worker", *map(str, words)]
        with (job.path / "worker.txt").open("w") as output:
            started = subprocess.run(
                command,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[descriptor],
                start_new_session=True,  # a Ctrl-C in the client's terminal is not for the job
                check=False,
            )
        if started.returncode != 0:
            raise MachineError(f"The job could not be started; see {output.name}.", next_step=f"cat {output.name}")

    def _check_machine(self) -> None:
        if find_spec("torch") is None or find_spec("diffusers") is None:
            raise MachineError(
                "Training on this machine needs torch and diffusers, which are not installed.",
                next_step="pip install 'orchestrator[train]'",
            )
        self.settings.home.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.settings.home).free
        if free < _MIN_FREE_BYTES:
            raise MachineError(
                f"{self.settings.home} has {free / 1e6:.0f} MB left; a job needs {_MIN_FREE_BYTES / 1e6:.0f} MB.",
                next_step="free some space, or set ORCHESTRATOR_HOME to a folder on another disk",
            )


def _import_path() -> list[str]:
    package_parent = str(Path(__file__).parents[2])
    return [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:  # it has just ended by itself
        return


def _complete_lines(log: IO[str]) -> Iterator[str]:
    """Yield the lines that end in a newline; a line still being written is left for later."""
    while True:
        position = log.tell()
        line = log.readline()
        if not line.endswith("\n"):
            log.seek(position)
            return
        yield line.rstrip("\n")
