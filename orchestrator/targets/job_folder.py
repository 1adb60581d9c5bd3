"""A job of the process target as files on disk.

```
jobs/NAME/
  request.json   the CreateTrainingJob request, written once
  state.json     what the worker has said of its latest attempt, replaced as a whole
  lock           locked by the worker and the training process for as long as one of them lives
  log.txt        what the training process printed, all attempts
  ml/            the job's /opt/ml
```
Whether a job runs is told from the lock, which the kernel lets go when its holders die, and from nothing that a dead
process could have left behind.
"""

import fcntl
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import AwareDatetime, BaseModel, ConfigDict

from orchestrator.contract.environment import Environment
from orchestrator.requests import IDENTITY_TAG, Request
from orchestrator.storage import write_atomically
from orchestrator.targets.base import JobDescription, JobStatus

_POLL_SECONDS = 0.05
_WITHOUT_A_WORD = (
    "The job's process is gone without a word: it was killed from outside, or the machine ran out of memory or power."
)


class AttemptState(BaseModel):
    """What the worker knows of its attempt."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    status: JobStatus = JobStatus.IN_PROGRESS
    """As the worker saw it last."""
    started: AwareDatetime
    """When the attempt began."""
    ended: AwareDatetime | None = None
    """When it ended."""
    worker_pid: int | None = None
    """Process that watches the training process."""
    training_pid: int | None = None
    """The training process itself."""
    exit_code: int | None = None
    """Of the training process; negative when a signal ended it."""
    failure_reason: str | None = None
    """Cause and next command."""


class JobFolder:
    """Reads and writes one job's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.environment = Environment(root=path / "ml")
        self.log = path / "log.txt"

    def request(self) -> Request:
        """Read the request the job was created with."""
        request: Request = json.loads((self.path / "request.json").read_text())
        return request

    def write_request(self, request: Request) -> None:
        """Write the request; the folder is a job from then on."""
        write_atomically(self.path / "request.json", json.dumps(request, indent=2))

    def state(self) -> AttemptState | None:
        """Read the worker's state, or None before the first worker has said anything."""
        try:
            return AttemptState.model_validate_json((self.path / "state.json").read_text())
        except FileNotFoundError:
            return None

    def write_state(self, state: AttemptState) -> None:
        """Replace the state as a whole."""
        write_atomically(self.path / "state.json", state.model_dump_json(indent=2))

    def lock(self, seconds: float) -> IO[str] | None:
        """Return the locked file, which keeps the lock until it is closed, or None if others hold it for `seconds`."""
        file = (self.path / "lock").open("w")
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.close()
                    return None
                time.sleep(_POLL_SECONDS)
            else:
                return file

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

    def describe(self) -> JobDescription:
        """Say what is true of the job now, also when all its processes were killed."""
        # The lock first: once nobody holds it, the state on disk is the last word there will be.
        running = self.is_running()
        request, state = self.request(), self.state()
        status = self._status(running, state)
        silent = status is JobStatus.FAILED and (state is None or not state.status.is_final)
        return JobDescription(
            name=self.name,
            status=status,
            identity=_tag(request, IDENTITY_TAG),
            created=datetime.fromtimestamp((self.path / "request.json").stat().st_mtime, UTC),
            started=state.started if state else None,
            ended=state.ended if state and status.is_final else None,
            failure_reason=_WITHOUT_A_WORD if silent else _reason(state, status),
            output=request["OutputDataConfig"]["S3OutputPath"],
        )

    def _status(self, running: bool, state: AttemptState | None) -> JobStatus:
        if running:
            return JobStatus.STOPPING if self.stop_requested() else JobStatus.IN_PROGRESS
        return state.status if state and state.status.is_final else JobStatus.FAILED

    def stop_requested(self) -> bool:
        """Return whether somebody asked the running attempt to stop."""
        return (self.path / "stop").exists()

    def request_stop(self) -> None:
        """Ask the running attempt to stop; the worker looks for this file."""
        (self.path / "stop").touch()

    def clear_stop(self) -> None:
        """Forget an earlier request to stop."""
        (self.path / "stop").unlink(missing_ok=True)

    def checkpoint_step(self) -> int | None:
        """Return the steps of the newest complete checkpoint, told from the folders' names."""
        steps = [int(path.name.removeprefix("step-")) for path in self.environment.checkpoints.glob("step-*")]
        return max(steps, default=None)


def _reason(state: AttemptState | None, status: JobStatus) -> str | None:
    return state.failure_reason if state and status is JobStatus.FAILED else None


def _tag(request: Request, key: str) -> str:
    return next(str(tag["Value"]) for tag in request["Tags"] if tag["Key"] == key)
