"""The process that runs one attempt of a local job and outlives the client that started it.

`python -m orchestrator.targets.local.worker JOB_FOLDER LOCK_DESCRIPTOR CACHE LAUNCHER` does what the service does
around a container: it lays out `/opt/ml`, has the launcher start the training, keeps its log, and publishes what it
left in the model folder. It inherits the job's lock from its parent and hands it on to what the launcher starts.
"""

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.contract.command_line import command
from orchestrator.contract.environment import EXIT_STOPPED
from orchestrator.contract.events import ATTEMPT_PHASE, Failed, Phase, parse
from orchestrator.errors import JobError
from orchestrator.requests import channel_uris
from orchestrator.storage import folder_of, write_atomically
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.job_folder import AttemptState, JobFolder
from orchestrator.targets.local.launcher import Launch, Launched, Launcher, launcher_named
from orchestrator.targets.local.publication import publish

_FULL = {errno.ENOSPC, errno.EDQUOT}
_OUT_OF_MEMORY = "That is what the system does when memory runs out."


class Worker:
    """Runs one attempt to its end; whatever happens is written into the job's state."""

    def __init__(
        self,
        job: JobFolder,
        lock_descriptor: int,
        cache: Path,
        launcher: Launcher,
    ) -> None:
        self.job = job
        self.lock_descriptor = lock_descriptor
        self.cache = cache
        self.launcher = launcher
        self.running: Launched | None = None
        self.state = AttemptState(started=datetime.now(UTC), worker_pid=os.getpid())

    def open_attempt(self) -> None:
        """Note where the attempt's log begins; the client reads it as soon as this process's parent has ended."""
        log_start = _open_log(self.job.log)
        self._write_state(log_start=log_start)

    def run(self) -> None:
        """Run the attempt and say how it ended."""
        signal.signal(signal.SIGTERM, lambda *_: self._pass_on_stop())
        try:
            self._write_state(worker_pid=os.getpid())
            _lay_out(self.job)
            ending = self._train()
        except JobError as error:
            ending = _failed(error.message, error.next_step)
        except Exception as error:  # noqa: BLE001  (what is not said here is never said)
            ending = self._broken(error)
        self._write_state(ended=datetime.now(UTC), **ending)
        if ending["status"] is JobStatus.COMPLETED:  # not before it is said: a retry would need them
            self.job.drop_leftovers()

    def _write_state(self, **changes: Any) -> None:
        self.state = self.state.model_copy(update=changes)
        self.job.write_state(self.state)

    def _train(self) -> dict[str, Any]:
        request = self.job.request()
        launch = Launch(request, self.job.environment, self.cache, self.lock_descriptor)
        running = self.running = self.launcher.start(launch)
        self._write_state(handle=running.handle)
        if self.job.stop_requested():  # asked before clients could know the handle
            self._pass_on_stop()
        failed = _keep_log(self.job.log, running.lines)
        exit_code = running.wait()
        self.running = None
        return self._ending(exit_code, failed)

    def _pass_on_stop(self) -> None:
        if self.running is None:
            return
        if self.job.kill_reason():
            self.launcher.kill(self.running.handle)
        else:
            self.launcher.stop(self.running.handle)

    def _ending(self, code: int, failed: Failed | None) -> dict[str, Any]:
        ended_by_stop = code == -signal.SIGTERM and self.job.stop_requested()
        if code == EXIT_STOPPED or ended_by_stop:
            return {"status": JobStatus.STOPPED, "exit_code": code}
        kill_reason = self.job.kill_reason()
        if code == -signal.SIGKILL and kill_reason:
            return {"status": JobStatus.STOPPED, "failure_reason": kill_reason, "exit_code": code}
        if code == 0:
            publish(self.job.environment.model, self.job.output, self.job)
            return {"status": JobStatus.COMPLETED, "exit_code": code}
        if failed is not None:
            return _failed(failed.message, failed.next_step, code)
        return _failed(*_silent_reason(code, self.job.name), code)

    def _broken(self, error: Exception) -> dict[str, Any]:
        """End the training and say what stopped the worker itself."""
        if self.running is not None:
            self.launcher.kill(self.running.handle)
            self.running.wait()
        next_step = command("jobs", "retry", self.job.name)
        if isinstance(error, OSError) and error.errno in _FULL:
            return _failed(f"The disk is full: {error}.", f"free some space, then: {next_step}")
        reason = f"The job could not be run on this machine: {type(error).__name__}: {error}."
        return _failed(reason, next_step)


def _lay_out(job: JobFolder) -> None:
    """Make `/opt/ml` as the service makes it; checkpoints and pictures of an earlier attempt stay."""
    environment = job.environment
    request = job.request()
    shutil.rmtree(environment.model, ignore_errors=True)
    for folder in (environment.model, environment.samples, environment.checkpoints):
        folder.mkdir(parents=True, exist_ok=True)
    environment.failure_file.unlink(missing_ok=True)
    write_atomically(environment.hyperparameters_file, json.dumps(request["HyperParameters"]))
    data = environment.root / "input" / "data"
    data.mkdir(parents=True, exist_ok=True)
    for channel, uri in channel_uris(request).items():
        (data / channel).unlink(missing_ok=True)
        (data / channel).symlink_to(folder_of(uri), target_is_directory=True)


def _open_log(log: Path) -> int:
    """Begin an attempt in the log and return its first byte; a line that a kill left open is closed first."""
    with log.open("ab+") as file:
        start = file.seek(0, os.SEEK_END)
        if start > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                start += file.write(b"\n")
        file.write(Phase(name=ATTEMPT_PHASE).model_dump_json().encode() + b"\n")
    return start


def _keep_log(path: Path, lines: Iterable[str]) -> Failed | None:
    failed = None
    with path.open("a", buffering=1, encoding="utf-8") as log:
        for line in lines:
            log.write(line)
            event = parse(line)
            if isinstance(event, Failed):
                failed = event
    return failed


def _failed(reason: str, next_step: str | None, code: int | None = None) -> dict[str, Any]:
    return {"status": JobStatus.FAILED, "failure_reason": reason, "next_step": next_step, "exit_code": code}


def _silent_reason(code: int, job: str) -> tuple[str, str | None]:
    """Return the reason for an end without a word, and the next step where going on is not the obvious one."""
    if code == -signal.SIGKILL:
        return f"The training process was killed (SIGKILL). {_OUT_OF_MEMORY}", None
    if code < 0:
        return f"The training process was ended by signal {-code}.", None
    return f"The training process ended with exit code {code}.", command("jobs", "logs", job)


def main(job_path: str, lock_descriptor: str, cache: str, launcher: str) -> None:
    """Open an attempt, then go on with it in a child that init adopts: the client waits for this process only."""
    job = JobFolder(Path(job_path))
    worker = Worker(job, int(lock_descriptor), Path(cache), launcher_named(launcher))
    worker.open_attempt()
    if os.fork() == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the client held Ctrl-C back while it started this
        worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
