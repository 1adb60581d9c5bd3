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
import shlex
import shutil
import signal
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from orchestrator.contract.adapter import MANIFEST_FILE
from orchestrator.contract.batch_result import index_file
from orchestrator.contract.checkpoints import FILES as CHECKPOINT_FILES
from orchestrator.contract.checkpoints import step_of
from orchestrator.contract.command_line import command
from orchestrator.contract.environment import BASE_MODEL_CHANNEL, Environment
from orchestrator.contract.evaluation_result import EVALUATION_FILE
from orchestrator.contract.events import ATTEMPT_PHASE, Failed, Phase, Step, parse
from orchestrator.contract.labels import EXCHANGE_FOLDER, WAITS_FOR_LABELS
from orchestrator.errors import JobError
from orchestrator.requests import Made, Request, channel_uris, identity_of, made_by, runs_in_container, scorer_of
from orchestrator.storage import folder_of, scratch_folder, write_atomically
from orchestrator.targets.base import JobDescription, JobStatus
from orchestrator.targets.local.stored_request import require_usable
from orchestrator.targets.names import TargetName

_OWNERS = ".owners"
_POLL_SECONDS = 0.05
_TAIL_BYTES = 100_000  # several hundred events
_VANISHED = (
    "The job's process ended without a message: it was killed from outside, or the machine ran out of memory or power."
)
_VANISHED_IN_QUEUE = "Its turn had not come when its process was killed or the machine was restarted."
_LOST = "Progress since its newest checkpoint is lost."
_DAMAGED = "Its state.json is missing or damaged, so it is not known how it ended."
_ASKED_TO_STOP = "It was asked to stop; its state.json is missing or damaged, so no more is known."
_PROCESSOR_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
"""Those that limit the processors which torch uses."""


_MANIFESTS = {
    Made.ADAPTER: MANIFEST_FILE,
    Made.EVALUATION: EVALUATION_FILE,
}
"""The file that is written last of what a job makes, if it is one."""


class AttemptState(BaseModel):
    """What the worker records of its attempt."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: JobStatus = JobStatus.IN_PROGRESS
    """Status when the worker last recorded it."""
    started: AwareDatetime
    """When the attempt began."""
    ended: AwareDatetime | None = None
    """When it ended."""
    log_start: int = Field(0, ge=0)
    """Offset of the attempt's first byte in the log."""
    processors: str | None = None
    """What it may compute on; None of an older version."""
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


class Ending(NamedTuple):
    """How an attempt ended, or where one that runs stands."""

    status: JobStatus
    """Completed, failed or stopped; of one that runs, in progress, stopping or queued."""
    ended: datetime | None = None
    """When, if that is known."""
    reason: str | None = None
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
        """Return whether the folder is a job, damaged or not; whatever else lies beside the jobs is none."""
        try:
            (self.path / "request.json").lstat()
        except PermissionError:
            return True
        except OSError:
            return False
        return True

    def created(self) -> datetime:
        """Return when the job was created; the epoch when that cannot be told."""
        try:
            seconds = (self.path / "request.json").lstat().st_mtime
        except OSError:  # just discarded, or no permission
            seconds = 0.0
        return datetime.fromtimestamp(seconds, UTC)

    def request(self) -> Request:
        """Read the request that the job was created with; raises JobError when it is damaged."""
        path = self.path / "request.json"
        try:
            request: Request = json.loads(path.read_text(encoding="utf-8"))
            require_usable(request)
        except FileNotFoundError:  # discarded meanwhile
            raise
        except (OSError, ValueError, RecursionError, KeyError) as error:
            raise self._damaged("request.json", error) from error
        return request

    def target(self) -> TargetName:
        """Return the target that runs the job, by its request; the local one when that is damaged."""
        path = self.path / "request.json"
        try:
            in_container = runs_in_container(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            in_container = False
        return TargetName.CONTAINER if in_container else TargetName.LOCAL

    def _damaged(self, name: str, error: Exception) -> JobError:
        """Return the error for a file of the job that cannot be read."""
        message = f"The job {self.name} is damaged: its {name} cannot be read ({_why(error)})."
        next_step = command("jobs", "remove", self.name)
        if isinstance(error, PermissionError):
            next_step = f"check the permissions of {self.path}"
        return JobError(message, next_step=next_step)

    @property
    def output(self) -> Path:
        """Folder of the finished adapter."""
        return folder_of(self.request()["OutputDataConfig"]["S3OutputPath"])

    def base_model(self) -> Path | None:
        """Return the folder of the base model that the job reads; None for one of the Hub, or where it is not known."""
        try:
            request = self.request()
        except (JobError, OSError):
            return None
        uri = channel_uris(request).get(BASE_MODEL_CHANNEL)
        if uri is None:
            return None
        return folder_of(uri)

    def state(self) -> AttemptState | None:
        """Read the worker's state; None before a worker has recorded any, and when it is damaged."""
        path = self.path / "state.json"
        try:
            text = path.read_text(encoding="utf-8")
            return AttemptState.model_validate_json(text)
        except (OSError, ValueError):
            return None

    def state_is_damaged(self) -> bool:
        """Return whether a worker recorded its state and it cannot be read any more."""
        return self.state() is None and os.path.lexists(self.path / "state.json")

    def write_state(self, state: AttemptState) -> None:
        """Replace the state as a whole."""
        path = self.path / "state.json"
        if path.is_dir():
            _delete(path)
        write_atomically(path, state.model_dump_json(indent=2))

    def begin(self, request: Request) -> None:
        """Turn the folder, whose lock is held, into a new job; delete what a client that was killed left in it."""
        for path in self.path.iterdir():
            if path.name != "lock":
                _delete(path)
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
        for name in ("state.json", "stop", "worker.txt"):
            _delete(self.path / name)

    def discard(self) -> None:
        """Delete the job and all its files in one step; the caller holds the lock."""
        with scratch_folder(self.path.parent) as trash:
            self.path.rename(trash / self.name)

    def drop_leftovers(self) -> None:
        """Delete what is not needed once the adapter is published: the model folder and the checkpoints.

        The labels of people are among those, and stay with the pictures that they are about.
        """
        shutil.rmtree(self.environment.model, ignore_errors=True)
        checkpoints = self.environment.checkpoints
        if not (checkpoints / EXCHANGE_FOLDER).is_dir():
            shutil.rmtree(checkpoints, ignore_errors=True)
            return
        for path in checkpoints.iterdir():
            if path.name == EXCHANGE_FOLDER:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def lock(self, seconds: float) -> IO[str] | None:
        """Return the locked file, which keeps the lock until it is closed, or None if others hold it for `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                file = (self.path / "lock").open("w")
            except IsADirectoryError as error:
                folder = shlex.quote(str(self.path / "lock"))
                message = f"The job {self.name} is damaged: its lock is a folder."
                raise JobError(message, next_step=f"rm -r {folder}") from error
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
        except (FileNotFoundError, IsADirectoryError):
            return False
        except BlockingIOError:
            return True
        except OSError as error:
            raise self._damaged("lock", error) from error
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

    def require_handle(self) -> None:
        """Raise JobError when the running attempt cannot be found, because its state is damaged."""
        if self.state_is_damaged():
            lock = shlex.quote(str(self.path / "lock"))
            raise JobError(
                f"The state.json of {self.name} is damaged, so it is not known which process to stop.",
                next_step=f"fuser -k -TERM {lock}  (ends the processes that hold the job's lock)",
            )

    def describe(self, target: TargetName) -> JobDescription:
        """Return what is known of the job now, also when all its processes were killed."""
        # The lock first: once nobody holds it, the state on disk is final.
        running = self.is_running()
        request = self.request()
        state = self.state()
        outcome = Ending(JobStatus.IN_PROGRESS)
        if not running:
            outcome = self.ending()
        elif self.stop_requested():
            outcome = Ending(JobStatus.STOPPING)
        elif state is not None and state.ticket is not None:
            outcome = Ending(JobStatus.QUEUED)
        started = None
        if state is not None and outcome.status is not JobStatus.QUEUED:
            started = state.started
        return JobDescription(
            name=self.name,
            target=target,
            status=outcome.status,
            identity=identity_of(request),
            created=self.created(),
            started=started,
            ended=outcome.ended,
            failure_reason=outcome.reason,
            next_step=outcome.next_step,
            output=request["OutputDataConfig"]["S3OutputPath"],
            makes=made_by(request),
            scorer=scorer_of(request),
        )

    def ending(self) -> Ending:
        """Return how the latest attempt ended, of a job that is not running.

        The worker's state says it. Without one, since the worker was killed, the disk was full, or the file is damaged:
        the adapter that lies in its place, a request to stop, or the failure in the log.
        """
        state = self.state()
        if state is not None and state.status.is_final:
            return Ending(
                state.status,
                state.ended,
                state.failure_reason,
                state.next_step,
            )
        published = self._published()
        if published is not None:
            return Ending(JobStatus.COMPLETED, published)
        kill_reason = self.kill_reason()
        if kill_reason:
            return Ending(JobStatus.STOPPED, reason=kill_reason)
        failed = self._reported_failure(state)
        if failed is not None:
            waits = failed.kind == WAITS_FOR_LABELS
            status = JobStatus.STOPPED if waits else JobStatus.FAILED
            return Ending(status, reason=failed.message, next_step=failed.next_step or None)
        if state is not None and state.ticket is not None:
            return Ending(JobStatus.FAILED, reason=_VANISHED_IN_QUEUE)
        return self._unknown_ending()

    def _unknown_ending(self) -> Ending:
        """Return what can be said of an attempt that left no word of its end."""
        if not self._state_is_lost():
            return Ending(JobStatus.FAILED, reason=_VANISHED)
        if self.stop_requested():
            return Ending(JobStatus.STOPPED, reason=_ASKED_TO_STOP)
        return Ending(JobStatus.FAILED, reason=_DAMAGED, next_step=command("jobs", "retry", self.name))

    def _state_is_lost(self) -> bool:
        """Return whether a worker recorded its state, as it does before training prints anything, and it is no more."""
        if self.state_is_damaged():
            return True
        return self.state() is None and self._has_trained()

    def _has_trained(self) -> bool:
        """Return whether the log has more than the line by which a worker opens an attempt."""
        try:
            with self.log.open("rb") as log:
                first_line = log.readline(_TAIL_BYTES)
                return first_line != b"" and log.read(1) != b""
        except OSError:
            return False

    def _published(self) -> datetime | None:
        """Return when this job published its result; None when it did not, or another job's lies there."""
        try:
            manifest = _manifest_of(self.request())
            owner = owner_file(self.output).read_text(encoding="utf-8")
            written = (self.output / manifest).stat().st_mtime
        except (OSError, ValueError):
            return None
        published = datetime.fromtimestamp(written, UTC)
        is_older = published < self.created()  # of the job before it was started anew
        if owner != self.name or is_older:
            return None
        return published

    def _reported_failure(self, state: AttemptState | None) -> Failed | None:
        """Return the last failure in the latest attempt's log."""
        start = 0
        if state is not None:
            start = state.log_start
        failed = None
        try:
            with self.log.open("rb") as log:
                log.seek(start)
                for line in log:
                    event = parse(line.decode(errors="replace"))
                    if isinstance(event, Failed):
                        failed = event
                    elif isinstance(event, Phase) and event.name == ATTEMPT_PHASE:
                        failed = None
        except OSError:
            return None
        return failed

    def last_step(self) -> Step | None:
        """Return the newest step that the latest attempt reported, if it is near the end of the log."""
        state = self.state()
        if state is None:
            return None
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(state.log_start, size - _TAIL_BYTES))
                lines = log.readlines(_TAIL_BYTES)
        except OSError:  # there is none yet, or what lies there is none
            return None
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
        if self.checkpoint_step() is not None:
            reason = f"{reason} {_LOST}"
        write_atomically(self.path / "stop", reason)

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
            return (self.path / "stop").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def checkpoint_step(self) -> int | None:
        """Return the steps of the newest complete checkpoint; one that lacks a file, or has an empty one, is none."""
        newest = None
        for path in self.environment.checkpoints.glob("*/"):
            step = step_of(path.name)
            if step is None or not _is_complete(path):
                continue
            if newest is None or step > newest:
                newest = step
        return newest


def processors() -> str:
    """Return what a process of this machine may compute on: the number of CPUs, and the variables that limit it."""
    count = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):  # Linux
        count = len(os.sched_getaffinity(0))
    facts = [f"{count} CPUs"]
    for name in _PROCESSOR_VARIABLES:
        value = os.environ.get(name)
        if value is not None:
            facts.append(f"{name}={value}")
    return ", ".join(facts)


def _manifest_of(request: Request) -> str:
    """Return the file that is written last of what a job makes; of images each host has one of its own."""
    made = made_by(request)
    if made is not Made.IMAGES:
        return _MANIFESTS[made]
    hosts = 1  # processes of this machine
    if runs_in_container(request):
        hosts = int(request["ResourceConfig"]["InstanceCount"])
    return index_file(0, hosts)


def owner_file(adapter: Path) -> Path:
    """Return the file that names the job to which an adapter's folder belongs."""
    return adapter.parent / _OWNERS / adapter.name


def _is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint has all its files."""
    return all(_has_content(checkpoint / name) for name in CHECKPOINT_FILES)


def _has_content(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def _delete(path: Path) -> None:
    """Delete a file, or a folder that lies in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _why(error: Exception) -> str:
    """Return in a few words why a file cannot be read."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, UnicodeDecodeError | json.JSONDecodeError):
        return "it is not JSON"
    return "it is not a request"


def _is_same_file(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
