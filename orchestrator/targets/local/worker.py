"""The process that runs one attempt of a local job and outlives the client that started it.

`python -m orchestrator.targets.local.worker JOB_FOLDER CACHE LAUNCHER TICKET TURN LOCK_DESCRIPTOR TICKET_DESCRIPTOR`
does what the service does around a container: it waits for its turn, lays out `/opt/ml`, has the launcher start the
training, keeps its log, and publishes the contents of the model folder. It inherits the job's lock and its ticket in
the queue from its parent and passes them on to what the launcher starts.
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
from orchestrator.contract.environment import EXIT_STOPPED, EXIT_WAITING
from orchestrator.contract.events import ATTEMPT_PHASE, Failed, Phase, line_of, parse
from orchestrator.errors import JobError
from orchestrator.requests import channel_uris
from orchestrator.storage import folder_of, write_atomically
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.job_folder import AttemptState, JobFolder, processors
from orchestrator.targets.local.launcher import Launch, Launched, Launcher, launcher_named
from orchestrator.targets.local.publication import publish
from orchestrator.targets.local.queue import Queue, Turn

_FULL = {errno.ENOSPC, errno.EDQUOT}
_STOPPED_IN_QUEUE = "It was stopped before its turn came."
_OUT_OF_MEMORY = "The system does that when memory runs out, or somebody has ended it."


class _StoppedInQueueError(Exception):
    """The job was asked to stop before its turn came."""


class Worker:
    """Runs one attempt until it ends; the outcome is always written to the job's state."""

    def __init__(
        self,
        job: JobFolder,
        cache: Path,
        launcher: Launcher,
        held: tuple[int, ...],
        ticket: Path | None,
    ) -> None:
        self.job = job
        self.ticket = ticket
        self.held = held
        self.cache = cache
        self.launcher = launcher
        self.running: Launched | None = None
        self.state = AttemptState(
            started=datetime.now(UTC),
            ticket=ticket,
            processors=processors(),
        )

    def open_attempt(self) -> None:
        """Record where the attempt's log begins: the client reads it once the parent of this process has ended."""
        log_start = _open_log(self.job.log)
        if self.ticket is None:  # else it starts once its turn has come
            _log_event(self.job.log, Phase(name=ATTEMPT_PHASE))
        self._write_state(log_start=log_start)

    def run(self) -> None:
        """Run the attempt, with a ticket once its turn has come, and record how it ended."""
        try:
            if self.ticket is not None:
                self._wait_for_turn(self.ticket)
                _log_event(self.job.log, Phase(name=ATTEMPT_PHASE))
            signal.signal(signal.SIGTERM, lambda *_: self._pass_on_stop())
            self._write_state(
                worker_pid=os.getpid(),
                ticket=None,
                started=datetime.now(UTC),
            )
            _lay_out(self.job)
            ending = self._train()
        except _StoppedInQueueError:
            ending = _stopped(reason=_STOPPED_IN_QUEUE)
        except JobError as error:
            ending = _failed(error.message, error.next_step)
        except Exception as error:  # noqa: BLE001  (nothing else would report it)
            ending = self._ending_by_error(error)
        self._write_state(ended=datetime.now(UTC), ticket=None, **ending)
        if ending["status"] is JobStatus.COMPLETED:  # only once it is recorded: a retry would need them
            self.job.drop_leftovers()

    def _wait_for_turn(self, ticket: Path) -> None:
        """Wait until the jobs before this one have ended; raises _StoppedInQueueError when asked to stop before."""
        signal.signal(signal.SIGTERM, _raise_stopped)
        # In this order, as a client that stops the job writes its request before it reads the state.
        self._write_state(worker_pid=os.getpid())
        if self.job.stop_requested():
            raise _StoppedInQueueError
        queue = Queue(ticket.parent)
        before = queue.jobs_before(ticket)
        if before:
            last = before[-1]
            _log_event(self.job.log, Phase(name=f"queued behind {last}"))
        queue.wait_for_turn(ticket)

    def _write_state(self, **changes: Any) -> None:
        self.state = self.state.model_copy(update=changes)
        self.job.write_state(self.state)

    def _train(self) -> dict[str, Any]:
        """Start the training, keep its log until it ends, and return how it ended."""
        launch = Launch(
            request=self.job.request(),
            environment=self.job.environment,
            cache=self.cache,
            held=self.held,
        )
        running = self.launcher.start(launch)
        self.running = running
        self._write_state(handle=running.handle)
        if self.job.stop_requested():  # by a client that could not know the handle yet
            self._pass_on_stop()
        failed = _keep_log(self.job.log, running.lines)
        exit_code = running.wait()
        self.running = None
        return self._ending(exit_code, failed)

    def _pass_on_stop(self) -> None:
        running = self.running
        if running is None:
            return
        if self.job.kill_reason():
            self.launcher.kill(running.handle)
        else:
            self.launcher.stop(running.handle)

    def _ending(self, code: int, failed: Failed | None) -> dict[str, Any]:
        """Return how an attempt ended, by its exit code, as fields of the state; publish its adapter if complete."""
        job = self.job
        ended_by_stop = code == -signal.SIGTERM and job.stop_requested()
        if code == EXIT_STOPPED or ended_by_stop:
            return _stopped(code)
        if code == EXIT_WAITING and failed is not None:
            return {**_stopped(code, failed.message), "next_step": failed.next_step}
        kill_reason = job.kill_reason()
        # SIGUSR1 asks local mode to kill its containers, and ends it where it has not begun to listen.
        if code in {-signal.SIGKILL, -signal.SIGUSR1} and kill_reason:
            return _stopped(code, kill_reason)
        if code == 0:
            publish(job.environment.model, job.output, job)
            return {"status": JobStatus.COMPLETED, "exit_code": code}
        if failed is not None:
            return _failed(failed.message, failed.next_step, code)
        return _failed_silently(code, job.name)

    def _ending_by_error(self, error: Exception) -> dict[str, Any]:
        """Kill the training and return what stopped the worker itself."""
        running = self.running
        if running is not None:
            self.launcher.kill(running.handle)
            running.wait()
        retry = command("jobs", "retry", self.job.name)
        if isinstance(error, OSError) and error.errno in _FULL:
            reason = f"The disk is full: {error}."
            return _failed(reason, f"free some space, then: {retry}")
        kind = type(error).__name__
        reason = f"The job could not be run on this machine: {kind}: {error}."
        return _failed(reason, retry)


def _raise_stopped(*_: object) -> None:
    """End the wait for a turn; a second signal must not end the record of it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _StoppedInQueueError


def _log_event(log: Path, event: Phase) -> None:
    line = line_of(event)
    with log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _lay_out(job: JobFolder) -> None:
    """Make `/opt/ml` as the service does; checkpoints and sampled images of an earlier attempt are kept."""
    environment = job.environment
    request = job.request()
    shutil.rmtree(environment.model, ignore_errors=True)
    folders = [
        environment.model,
        environment.samples,
        environment.checkpoints,
    ]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    environment.failure_file.unlink(missing_ok=True)
    environment.report.unlink(missing_ok=True)
    hyperparameters = json.dumps(request["HyperParameters"])
    write_atomically(environment.hyperparameters_file, hyperparameters)
    data = environment.root / "input" / "data"
    data.mkdir(parents=True, exist_ok=True)
    for channel, uri in channel_uris(request).items():
        source = folder_of(uri)
        if not source.is_dir():  # a model of the person's own, which was moved since
            retry = command("jobs", "retry", job.name)
            raise JobError(
                f"The job reads {source} ({channel}), which is gone.",
                next_step=f"put it back, then: {retry}",
            )
        link = data / channel
        link.unlink(missing_ok=True)
        link.symlink_to(source, target_is_directory=True)


def _open_log(log: Path) -> int:
    """Return the offset in the log at which an attempt begins; end the line that a kill cut off."""
    with log.open("ab+") as file:
        start = file.seek(0, os.SEEK_END)
        if start > 0:
            file.seek(-1, os.SEEK_END)
            last_byte = file.read(1)
            if last_byte != b"\n":
                start += file.write(b"\n")
    return start


def _keep_log(path: Path, lines: Iterable[str]) -> Failed | None:
    """Append lines to the log until they end; return the last failure that the training reported."""
    failed = None
    with path.open("a", buffering=1, encoding="utf-8") as log:
        for line in lines:
            log.write(line)
            event = parse(line)
            if isinstance(event, Failed):
                failed = event
    return failed


def _stopped(code: int | None = None, reason: str | None = None) -> dict[str, Any]:
    return {
        "status": JobStatus.STOPPED,
        "failure_reason": reason,
        "exit_code": code,
    }


def _failed(
    reason: str,
    next_step: str | None,
    code: int | None = None,
) -> dict[str, Any]:
    return {
        "status": JobStatus.FAILED,
        "failure_reason": reason,
        "next_step": next_step,
        "exit_code": code,
    }


def _failed_silently(code: int, job: str) -> dict[str, Any]:
    """Return the ending of an attempt that reported no failure; without a next step, a retry is the obvious one."""
    next_step = None
    if code == -signal.SIGKILL:
        reason = f"The training process was killed (SIGKILL). {_OUT_OF_MEMORY}"
    elif code < 0:
        reason = f"The training process was ended by signal {-code}."
    else:
        reason = f"The training process ended with exit code {code}."
        next_step = command("jobs", "logs", job)
    return _failed(reason, next_step, code)


def main(
    job_path: str,
    cache: str,
    launcher: str,
    ticket: str,
    turn: str,
    *held: str,
) -> None:
    """Start an attempt and run it in a child that init adopts: the client waits for this process only."""
    awaited = None
    if turn == Turn.QUEUED:
        awaited = Path(ticket)
    worker = Worker(
        JobFolder(Path(job_path)),
        Path(cache),
        launcher_named(launcher),
        held=tuple(map(int, held)),
        ticket=awaited,
    )
    worker.open_attempt()
    is_child = os.fork() == 0
    if is_child:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the client blocked Ctrl-C while it started this
        worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
