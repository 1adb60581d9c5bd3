"""A local job as files on disk.

```
jobs/NAME/
  request.json   the CreateTrainingJob request, written once: with it the folder is a job
  state.json     what the worker recorded of its latest attempt, replaced as a whole
  lock           locked by the worker and by what its launcher started, as long as one of them lives
  stop           exists when the running attempt was asked to stop; holds the reason if it was killed
  log.txt        what the training printed, all attempts
  ml/            the job's /opt/ml
```
A job is running while its lock is held: the kernel releases it when the holders die, whereas files would outlive a
process that was killed.
"""

import fcntl
import json
import os
import shutil
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import AwareDatetime, BaseModel, ConfigDict

from orchestrator.contract.checkpoints import step_of
from orchestrator.contract.command_line import command
from orchestrator.contract.environment import Environment
from orchestrator.contract.events import Failed, Step, parse
from orchestrator.errors import JobError
from orchestrator.requests import Request, identity_of
from orchestrator.storage import folder_of, scratch_folder, write_atomically
from orchestrator.targets.base import JobDescription, JobStatus
from orchestrator.targets.names import TargetName

_POLL_SECONDS = 0.05
_TAIL_BYTES = 100_000  # several hundred events
_VANISHED = (
    "The job's process ended without a message: it was killed from outside, or the machine ran out of memory or power."
)
_VANISHED_IN_QUEUE = "Its turn had not come when its process was killed or the machine was restarted."
_LOST = "Progress since its newest checkpoint is lost."


class AttemptState(BaseModel):
    """What the worker records of its attempt."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    status: JobStatus = JobStatus.IN_PROGRESS
    """Status when the worker last recorded it."""
    started: AwareDatetime
    """When the attempt began."""
    ended: AwareDatetime | None = None
    """When it ended."""
    log_start: int = 0
    """Offset of the attempt's first byte in the log."""
    worker_pid: int | None = None
    """Process that watches the training process."""
    ticket: Path | None = None
    """Its place in the queue while it waits for its turn; None otherwise."""
    handle: str | None = None
    """Identifies the running training to the launcher; the id of a process."""
    exit_code: int | None = None
    """Exit code of the training; negative when a signal ended it."""
    failure_reason: str | None = None
    """What happened and why."""
    next_step: str | None = None
    """The next command, or what to change."""


class JobFolder:
    """Reads and writes one job's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.environment = Environment(root=path / "ml")
        self.log = path / "log.txt"

    def exists(self) -> bool:
        """Return whether the folder is a job."""
        return (self.path / "request.json").is_file()

    def request(self) -> Request:
        """Read the request that the job was created with; raises JobError when it is damaged."""
        try:
            request: Request = json.loads((self.path / "request.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise JobError(
                f"The job {self.name} is damaged: its request cannot be read ({error}).",
                next_step=command("jobs", "remove", self.name),
            ) from error
        return request

    @property
    def output(self) -> Path:
        """Folder of the finished adapter."""
        return folder_of(self.request()["OutputDataConfig"]["S3OutputPath"])

    def state(self) -> AttemptState | None:
        """Read the worker's state; None before a worker has recorded any, and when it is damaged."""
        try:
            return AttemptState.model_validate_json((self.path / "state.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def write_state(self, state: AttemptState) -> None:
        """Replace the state as a whole."""
        write_atomically(self.path / "state.json", state.model_dump_json(indent=2))

    def begin(self, request: Request) -> None:
        """Turn the folder, whose lock is held, into a new job; delete what a client that was killed left in it."""
        for path in self.path.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_atomically(self.path / "request.json", json.dumps(request, indent=2))

    def replace_request(self, request: Request) -> None:
        """Replace the request; the file keeps its time, which is when the job was created."""
        if request == self.request():
            return
        path = self.path / "request.json"
        written = path.stat()
        write_atomically(path, json.dumps(request, indent=2))
        os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))

    def forget_attempt(self) -> None:
        """Delete the state and the stop request of the last attempt, before another starts."""
        for name in ("state.json", "stop"):
            (self.path / name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete the job and all its files in one step; the caller holds the lock."""
        with scratch_folder(self.path.parent) as trash:
            self.path.rename(trash / self.name)

    def drop_leftovers(self) -> None:
        """Delete what is not needed once the adapter is published: the model folder and the checkpoints."""
        for folder in (self.environment.model, self.environment.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)

    def lock(self, seconds: float) -> IO[str] | None:
        """Return the locked file, which keeps the lock until it is closed, or None if others hold it for `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                file = (self.path / "lock").open("w")
            except (FileExistsError, FileNotFoundError):  # the job was discarded meanwhile
                if self.path.is_file():
                    raise
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                if time.monotonic() > deadline:
                    return None
                time.sleep(_POLL_SECONDS)
                continue
            if _is_same_file(file, self.path / "lock"):
                return file
            file.close()  # the job was discarded in between, and its lock with it

    def is_running(self) -> bool:
        """Return whether a process of the job is alive."""
        try:
            with (self.path / "lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def is_queued(self) -> bool:
        """Return whether the job waits for its turn."""
        state = self.state()
        return state is not None and state.ticket is not None and self.is_running()

    def handle(self) -> str | None:
        """Return the launcher's handle of the latest attempt, or None before the worker has started it."""
        state = self.state()
        if state is None:
            return None
        return state.handle

    def describe(self, target: TargetName) -> JobDescription:
        """Return what is known of the job now, also when all its processes were killed."""
        # The lock first: once nobody holds it, the state on disk is final.
        running = self.is_running()
        request = self.request()
        state = self.state()
        status = self._status(running, state)
        reason, next_step = self._ending(status, state)
        return JobDescription(
            name=self.name,
            target=target,
            status=status,
            identity=identity_of(request),
            created=datetime.fromtimestamp((self.path / "request.json").stat().st_mtime, UTC),
            started=state.started if state and status is not JobStatus.QUEUED else None,
            ended=state.ended if state and status.is_final else None,
            failure_reason=reason,
            next_step=next_step,
            output=request["OutputDataConfig"]["S3OutputPath"],
        )

    def _status(self, running: bool, state: AttemptState | None) -> JobStatus:
        if running and self.stop_requested():
            return JobStatus.STOPPING
        if running:
            return JobStatus.QUEUED if state and state.ticket else JobStatus.IN_PROGRESS
        if state and state.status.is_final:
            return state.status
        return JobStatus.STOPPED if self.kill_reason() else JobStatus.FAILED

    def _ending(self, status: JobStatus, state: AttemptState | None) -> tuple[str | None, str | None]:
        """Return why the attempt ended and the next command: from its state, the stop request, or else its log."""
        if not status.is_final:
            return None, None
        if state and state.status.is_final:
            return state.failure_reason, state.next_step
        if reason := self.kill_reason():
            return reason, None
        failed = self._reported_failure(state)
        if failed is None and state and state.ticket:
            return _VANISHED_IN_QUEUE, None
        if failed is None:  # the worker was killed, or the disk was too full to record the ending
            return _VANISHED, None
        return failed.message, failed.next_step or None

    def _reported_failure(self, state: AttemptState | None) -> Failed | None:
        """Return the last failure in the attempt's log."""
        if state is None or not self.log.exists():
            return None
        with self.log.open("rb") as log:
            log.seek(state.log_start)
            failed = None
            for line in log:
                event = parse(line.decode(errors="replace"))
                if isinstance(event, Failed):
                    failed = event
        return failed

    def last_step(self) -> Step | None:
        """Return the newest step that the latest attempt reported, if it is near the end of the log."""
        state = self.state()
        if state is None or not self.log.exists():
            return None
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(state.log_start, size - _TAIL_BYTES))
            lines = log.readlines(_TAIL_BYTES)
        for line in reversed(lines):
            event = parse(line.decode(errors="replace"))
            if isinstance(event, Step):
                return event
        return None

    def stop_requested(self) -> bool:
        """Return whether somebody asked the running attempt to stop."""
        return (self.path / "stop").exists()

    def request_stop(self) -> None:
        """Ask the running attempt to stop; the worker looks for this file."""
        (self.path / "stop").touch()

    def request_kill(self) -> None:
        """Record why the running attempt is about to be killed."""
        if self.kill_reason():  # the first request killed it
            return
        if self.stop_requested():
            reason = "It did not end after it was asked to stop, and was killed."
        else:
            reason = "It was killed on request."
        write_atomically(self.path / "stop", f"{reason} {_LOST}")

    def wake(self) -> None:
        """Have a worker that waits for its turn look at the stop request at once; does nothing when none waits."""
        state = self.state()
        if state is None or state.worker_pid is None or not self.is_queued():
            return
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(state.worker_pid, signal.SIGTERM)

    def kill_reason(self) -> str:
        """Return why the attempt was killed on request, or an empty text when it was not."""
        try:
            return (self.path / "stop").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def checkpoint_step(self) -> int | None:
        """Return the steps of the newest complete checkpoint, by the names of the folders."""
        newest = None
        for path in self.environment.checkpoints.glob("*"):
            step = step_of(path.name)
            if step is not None and (newest is None or step > newest):
                newest = step
        return newest


def _is_same_file(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
