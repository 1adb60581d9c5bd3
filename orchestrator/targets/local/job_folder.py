"""A local job as files on disk.

```
jobs/NAME/
  request.json   the CreateTrainingJob request, written once: with it the folder is a job
  state.json     what the worker has said of its latest attempt, replaced as a whole
  lock           locked by the worker and by what its launcher started, for as long as one of them lives
  stop           is there when somebody asked the running attempt to stop; holds the reason if it was killed
  log.txt        what the training printed, all attempts
  ml/            the job's /opt/ml
```
Whether a job runs is told from the lock, which the kernel lets go when its holders die, and from nothing that a dead
process could have left behind.
"""

import fcntl
import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import AwareDatetime, BaseModel, ConfigDict

from orchestrator.contract.checkpoints import step_of
from orchestrator.contract.command_line import command
from orchestrator.contract.environment import Environment
from orchestrator.contract.events import Failed, parse
from orchestrator.errors import JobError
from orchestrator.requests import Request, identity_of
from orchestrator.storage import folder_of, scratch_folder, write_atomically
from orchestrator.targets.base import JobDescription, JobStatus
from orchestrator.targets.names import TargetName

_POLL_SECONDS = 0.05
_NO_LAST_WORD = (
    "The job's process is gone without a word: it was killed from outside, or the machine ran out of memory or power."
)
_LOST = "What came after its newest checkpoint is lost."


class AttemptState(BaseModel):
    """What the worker knows of its attempt."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    status: JobStatus = JobStatus.IN_PROGRESS
    """As the worker saw it last."""
    started: AwareDatetime
    """When the attempt began."""
    ended: AwareDatetime | None = None
    """When it ended."""
    log_start: int = 0
    """First byte of the attempt in the log."""
    worker_pid: int | None = None
    """Process that watches the training process."""
    handle: str | None = None
    """What the launcher knows the running training by; of a process, its id."""
    exit_code: int | None = None
    """Exit code of the training; negative when a signal ended it."""
    failure_reason: str | None = None
    """What happened and why."""
    next_step: str | None = None
    """What to type or change next."""


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
        """Read the request the job was created with; raises JobError when it is not as it was written."""
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
        """Where the finished adapter goes."""
        return folder_of(self.request()["OutputDataConfig"]["S3OutputPath"])

    def state(self) -> AttemptState | None:
        """Read the worker's state, or None before the first worker has said anything that can be read."""
        try:
            return AttemptState.model_validate_json((self.path / "state.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def write_state(self, state: AttemptState) -> None:
        """Replace the state as a whole."""
        write_atomically(self.path / "state.json", state.model_dump_json(indent=2))

    def begin(self, request: Request) -> None:
        """Turn the folder, which holds its lock, into a new job; what a client that was killed left in it goes."""
        for path in self.path.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_atomically(self.path / "request.json", json.dumps(request, indent=2))

    def replace_request(self, request: Request) -> None:
        """Write a changed request; its file keeps its time, which is when the job was created."""
        if request == self.request():
            return
        path = self.path / "request.json"
        written = path.stat()
        write_atomically(path, json.dumps(request, indent=2))
        os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))

    def forget_attempt(self) -> None:
        """Forget what the last attempt said and what was asked of it, before another begins."""
        for name in ("state.json", "stop"):
            (self.path / name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the job and everything of it in one step; its lock has to be held."""
        with scratch_folder(self.path.parent) as grave:
            self.path.rename(grave / self.name)

    def drop_leftovers(self) -> None:
        """Remove what nobody needs once the adapter is published: training's own copy of it, and the checkpoints."""
        for folder in (self.environment.model, self.environment.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)

    def lock(self, seconds: float) -> IO[str] | None:
        """Return the locked file, which keeps the lock until it is closed, or None if others hold it for `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                file = (self.path / "lock").open("w")
            except (FileExistsError, FileNotFoundError):  # the job was discarded while this looked at its folder
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

    def handle(self) -> str | None:
        """Return what the launcher knows the latest attempt by, or None before the worker has started it."""
        state = self.state()
        return state.handle if state else None

    def describe(self, target: TargetName) -> JobDescription:
        """Say what is true of the job now, also when all its processes were killed."""
        # The lock first: once nobody holds it, the state on disk is the last word there will be.
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
            started=state.started if state else None,
            ended=state.ended if state and status.is_final else None,
            failure_reason=reason,
            next_step=next_step,
            output=request["OutputDataConfig"]["S3OutputPath"],
        )

    def _status(self, running: bool, state: AttemptState | None) -> JobStatus:
        if running:
            return JobStatus.STOPPING if self.stop_requested() else JobStatus.IN_PROGRESS
        if state and state.status.is_final:
            return state.status
        return JobStatus.STOPPED if self.kill_reason() else JobStatus.FAILED

    def _ending(self, status: JobStatus, state: AttemptState | None) -> tuple[str | None, str | None]:
        """Return why the attempt ended as it did and what to do about it, from the best witness there is."""
        if not status.is_final:
            return None, None
        if state and state.status.is_final:
            return state.failure_reason, state.next_step
        if reason := self.kill_reason():
            return reason, None
        failed = self._reported_failure(state)
        if failed is None:  # the worker was killed, or had no room on the disk for its last word
            return _NO_LAST_WORD, None
        return failed.message, failed.next_step or None

    def _reported_failure(self, state: AttemptState | None) -> Failed | None:
        """Return the last failure that the attempt's log holds."""
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

    def stop_requested(self) -> bool:
        """Return whether somebody asked the running attempt to stop."""
        return (self.path / "stop").exists()

    def request_stop(self) -> None:
        """Ask the running attempt to stop; the worker looks for this file."""
        (self.path / "stop").touch()

    def request_kill(self) -> None:
        """Note why the running attempt is about to be killed, before it is."""
        if self.kill_reason():  # the first request is what killed it
            return
        if self.stop_requested():
            reason = "It did not end after it was asked to stop, and was killed."
        else:
            reason = "It was killed at once, as asked."
        write_atomically(self.path / "stop", f"{reason} {_LOST}")

    def kill_reason(self) -> str:
        """Return why the attempt was killed on request, or an empty text when it was not."""
        try:
            return (self.path / "stop").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def checkpoint_step(self) -> int | None:
        """Return the steps of the newest complete checkpoint, told from the folders' names."""
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
