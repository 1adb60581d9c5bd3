"""The life cycle of local jobs, as far as it depends on a job's folder, lock and log alone.

A launcher starts, stops and kills the training.
"""

import fcntl
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

from orchestrator.contract.command_line import command
from orchestrator.errors import JobError, JobExistsError, MachineError, OrchestratorError
from orchestrator.requests import LocalContainer, Request, moved, scorer_of, training_of
from orchestrator.settings import Settings, free_bytes
from orchestrator.storage import FolderStore, Store, folder_of, remove_abandoned
from orchestrator.targets.base import JobDescription, JobStatus, JobSummary
from orchestrator.targets.local import launcher as launchers
from orchestrator.targets.local.detached import blocked_ctrl_c, import_path, printed_lines
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.local.kept_labels import keep_labels
from orchestrator.targets.local.launcher import Launcher
from orchestrator.targets.local.publication import require_free, reserve, withdraw
from orchestrator.targets.local.queue import Queue, Ticket, Turn
from orchestrator.targets.names import TargetName
from orchestrator.terminal import size_text

LOCK_SECONDS = 10.0  # the training of a killed worker ends when it prints its next line
_POLL_SECONDS = 0.1
_FIRST_FREE_DESCRIPTOR = 3  # behind stdin, stdout and stderr
_MIN_FREE_BYTES = 500_000_000


class LocalJobs:
    """Runs requests on this machine, each by a detached worker whose state is a folder."""

    def __init__(
        self,
        name: TargetName,
        launcher: Launcher,
        settings: Settings,
        turn: Turn = Turn.TOGETHER,
        *,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        self.name = name
        self.launcher = launcher
        self.settings = settings
        self.turn = turn
        self.queue = Queue(settings.queue)
        self.store: Store = FolderStore(settings.home)
        self.lock_seconds = lock_seconds

    def create(self, request: Request) -> None:
        """Start a job; raises JobExistsError when there is one of that name."""
        self.require_machine(request)
        self.sweep()
        job = JobFolder(self.settings.jobs / request["TrainingJobName"])
        with self._lock(job, JobExistsError(job.name)) as lock:
            if job.exists():
                raise self._existing(job)
            try:
                output = folder_of(request["OutputDataConfig"]["S3OutputPath"])
                reserve(output, job)
                ticket = self._ticket(job)
            except JobError:
                job.discard()  # it holds only its lock
                raise
            with ticket:
                job.begin(request)
                self._start_worker(job, lock, ticket)

    def resume(self, name: str, request: Request | None = None) -> None:
        """Start an ended job again from its newest checkpoint, with the request and the code it was submitted with.

        With a `request`, the job takes over its limits.
        """
        job = self._job(name)
        self.require_machine(request or job.request())
        with self._lock(job, _running(name, "wait")) as lock:
            if not job.exists():
                raise _no_job(name)
            if job.ending().status is JobStatus.COMPLETED:  # another retry was faster
                raise JobError(f"The job {name} is complete.", next_step=command("jobs", "show", name))
            reserve(job.output, job)
            with self._ticket(job) as ticket:
                if request is not None:
                    job.replace_request(moved(job.request(), request))
                job.forget_attempt()
                self._start_worker(job, lock, ticket)

    def restart(self, request: Request) -> None:
        """Start an ended job from its beginning, with a new request and without its checkpoints.

        They are deleted last, when nothing can refuse the start any more.
        """
        self.require_machine(request)
        job = self._job(request["TrainingJobName"])
        reserve(folder_of(request["OutputDataConfig"]["S3OutputPath"]), job)
        with self._ticket(job) as ticket:
            self._leave_queue(job)
            with self._lock(job, _running(job.name, "stop")) as lock:
                keep_labels(job.environment.checkpoints, self.settings.labels, job.name)
                job.begin(request)
                self._start_worker(job, lock, ticket)

    def discard(self, name: str, *, adapter: bool = False) -> None:
        """Delete an ended or queued job, its files, its evaluation or images, with `adapter` its adapter too.

        Raises JobError if it runs.
        """
        job = self._job(name)
        self.settings.require_writable()
        self._leave_queue(job)
        with self._lock(job, _running(name, "stop")):
            if adapter:
                withdraw(job.output, job)
            withdraw(self.settings.evaluations / job.name, job)
            withdraw(self.settings.images / job.name, job)
            keep_labels(job.environment.checkpoints, self.settings.labels, job.name)
            job.discard()

    def _leave_queue(self, job: JobFolder) -> None:
        """Stop a job that waits for its turn: nothing of it runs yet."""
        if job.is_queued():
            self.stop(job.name)
            self.wait_for_end(job.name, self.lock_seconds)

    def obstacle(self, request: Request, *, starts_again: bool) -> JobError | None:
        """Return why a request would start no job: the adapter's name is taken, or it was submitted before.

        The latter is none where an earlier run `starts_again`.
        """
        job = JobFolder(self.settings.jobs / request["TrainingJobName"])
        try:
            if job.exists() and job.target() is not self.name:
                return self._existing(job)
            if job.exists() and not starts_again:
                status = job.describe(self.name).status
                return JobExistsError(job.name, f"was submitted before and is {status}")
            require_free(folder_of(request["OutputDataConfig"]["S3OutputPath"]), job)
        except JobError as error:
            return error
        return None

    def describe(self, name: str) -> JobDescription:
        """Return what is known of a job; raises JobError when there is none."""
        job = self._job(name)
        try:
            found = job.describe(self.name)
            state = job.state()
        except FileNotFoundError:  # discarded meanwhile
            raise _no_job(name) from None
        if found.status is not JobStatus.QUEUED or state is None or state.ticket is None:
            return found
        before = self.queue.jobs_before(state.ticket)
        return found.model_copy(update={"stage": _behind(before)})

    def summaries(self) -> Iterator[JobSummary | OrchestratorError]:
        """Yield every job, the oldest first; an error stands for one whose files cannot be read."""
        for name in self.names():
            try:
                yield self._summary(name)
            except OrchestratorError as error:
                yield error

    def _summary(self, name: str) -> JobSummary:
        found = self.describe(name)
        job = self._job(name)
        request = job.request()
        training = training_of(request["HyperParameters"])
        settings = dict(training.settings)
        folder = job.base_model()
        if folder is not None and "base_model" in settings:
            settings["base_model"] = str(folder)  # the request has its name alone, as it goes to accounts
        step = None
        last = job.last_step()
        if last is not None:
            step = last.step
        return JobSummary(
            name=name,
            target=self.name,
            status=found.status,
            created=found.created,
            step=step,
            scorer=scorer_of(request),
            recipe=training.recipe,
            settings=settings,
            steps=training.steps,
        )

    def has(self, name: str) -> bool:
        """Return whether there is a job of that name."""
        job = JobFolder(self.settings.jobs / name)
        return job.path.parent == self.settings.jobs and self._is_mine(job)

    def names(self) -> list[str]:
        """Return the names of all jobs, the oldest first."""
        jobs = [JobFolder(path) for path in self.settings.jobs.glob("[!.]*")]
        jobs.sort(key=JobFolder.created)
        return [job.name for job in jobs if self._is_mine(job)]

    def under_way(self) -> list[str]:
        """Return the names of the jobs that run or wait for their turn, in the order in which they came."""
        return self.queue.jobs()

    def stop(self, name: str) -> None:
        """Ask a job to save a checkpoint and end; returns at once."""
        job = self._job(name)
        if not job.is_running():
            return
        self.settings.require_writable()
        job.require_handle()
        job.request_stop()
        handle = job.handle()
        if handle is not None:
            self.launcher.stop(handle)
        else:  # the worker finds the request in the queue, or once it has started the training
            job.wake()

    def kill(self, name: str) -> None:
        """End a job at once, without a checkpoint; returns at once."""
        job = self._job(name)
        if not job.is_running():
            return
        self.settings.require_writable()
        job.require_handle()
        job.request_kill()
        handle = job.handle()
        if handle is not None:
            self.launcher.kill(handle)
        else:
            job.wake()

    def log_lines(
        self,
        name: str,
        *,
        follow: bool,
        latest_attempt: bool = False,
    ) -> Iterator[str]:
        """Yield the log of all attempts or of the latest; with `follow`, yield new lines until the job ends."""
        job = self._job(name)
        start = 0
        if latest_attempt:
            state = job.state()
            if state is not None:
                start = state.log_start
        with _opened_log(job) as log:
            log.seek(start)
            yield from printed_lines(log, lambda: follow and job.is_running())

    def wait_for_end(self, name: str, seconds: float) -> bool:
        """Wait until the job has ended, `seconds` at most; return whether it has."""
        job = self._job(name)
        deadline = time.monotonic() + seconds
        while job.is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def root(self, name: str) -> Path:
        """Return the folder that is the `/opt/ml` of a job."""
        return JobFolder(self.settings.jobs / name).environment.root

    def report(self, name: str) -> str | None:
        """Return the URI of the page that the latest attempt of a job left when it ended; None without one."""
        path = self._job(name).environment.report
        return path.as_uri() if path.is_file() else None

    def checkpoints(self, name: str) -> str:
        """Return the URI of the folder of a job's checkpoints."""
        return self._job(name).environment.checkpoints.as_uri()

    def checkpoint_step(self, name: str) -> int | None:
        """Return the optimizer steps of the newest checkpoint, or None when there is none."""
        return self._job(name).checkpoint_step()

    def _is_mine(self, job: JobFolder) -> bool:
        """Return whether a folder is a job of this target: all local ones keep theirs side by side."""
        return job.exists() and job.target() is self.name

    def _existing(self, job: JobFolder) -> JobError:
        """Return the error for a job of that name, also of another local target, where it is another kind of job."""
        other = job.target()
        if other is self.name:
            return JobExistsError(job.name)
        again = command("jobs", "remove", job.name)
        show = command("jobs", "show", job.name)
        message = f"The job {job.name} was submitted with --target {other} before. Nothing was started."
        return JobError(message, next_step=f"{show}  (or submit with another --name; or, to run it anew: {again})")

    def _job(self, name: str) -> JobFolder:
        if not self.has(name):
            raise _no_job(name)
        return JobFolder(self.settings.jobs / name)

    def _lock(self, job: JobFolder, held: JobError) -> IO[str]:
        """Return the job's lock; raises `held` when the job exists and another process keeps the lock."""
        seconds = self.lock_seconds
        if job.exists() and job.is_running():  # waiting would not help
            seconds = 0.0
        lock = job.lock(seconds)
        if lock is not None:
            return lock
        if job.exists():
            raise held
        raise JobError(f"The job {job.name} is being started.", next_step=command("jobs", "show", job.name))

    def _ticket(self, job: JobFolder) -> Ticket:
        """Return the place of an attempt among all of this machine; raises JobError when it may not start now."""
        ticket = self.queue.take(job.name)
        try:
            self._require_turn(job.name, ticket)
        except JobError:
            ticket.close()
            raise
        return ticket

    def _require_turn(self, name: str, ticket: Ticket) -> None:
        """Raise JobError when the job is to run alone and another one runs or waits on this machine."""
        if self.turn is not Turn.ALONE:
            return
        others = []
        for other in self.queue.jobs_before(ticket.path):
            job = JobFolder(self.settings.jobs / other)
            if other != name and job.is_running():
                others.append(other)
        if not others:
            return
        subject = f"The job {others[0]} is"
        after = "after it"
        if len(others) > 1:
            names = ", ".join(others)
            subject = f"The jobs {names} are"
            after = "after them"
        message = f"{subject} under way on this machine, and jobs that run at once slow each other down."
        raise JobError(
            f"{message} Nothing was started.",
            next_step=f"add --queue to start {after}, or --together to start now",
        )

    def _start_worker(self, job: JobFolder, lock: IO[str], ticket: Ticket) -> None:
        """Start the worker, which takes over the lock and the ticket."""
        worker = [
            sys.executable,
            "-m",
            "orchestrator.targets.local.worker",
            str(job.path),
            str(self.settings.cache),
            launchers.name_of(self.launcher),
            str(ticket.path),
            self.turn,
        ]
        environment = {**os.environ, "PYTHONPATH": import_path()}
        errors = job.path / "worker.txt"
        with errors.open("w", encoding="utf-8") as stderr, _held(lock, ticket.file) as held, blocked_ctrl_c():
            started = subprocess.run(
                [*worker, *map(str, held)],
                env=environment,
                cwd=job.path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=held,
                start_new_session=True,  # a Ctrl-C in the client's terminal must not reach the job
                check=False,
            )
        if started.returncode != 0:
            path = shlex.quote(str(errors))
            raise MachineError("The job could not be started.", next_step=f"cat {path}")

    def sweep(self) -> None:
        """Delete what killed commands left half-written."""
        now = time.time()
        folders = [
            self.settings.jobs,
            self.settings.adapters,
            self.settings.store,
        ]
        for folder in folders:
            remove_abandoned(folder, now)

    @property
    def container(self) -> LocalContainer | None:
        """What a job runs in; None for a process."""
        return None

    def require_machine(self, request: Request) -> None:  # noqa: ARG002  (containers need its image)
        """Raise MachineError when this machine lacks what a job needs, or room on the disk."""
        self.launcher.require_machine()
        self.settings.require_writable()
        self.settings.home.mkdir(parents=True, exist_ok=True)
        free_space = free_bytes(self.settings.home)
        if free_space < _MIN_FREE_BYTES:
            free = size_text(free_space)
            needed = size_text(_MIN_FREE_BYTES)
            raise MachineError(
                f"{self.settings.home} has {free} of free space; a job needs {needed}.",
                next_step="free some space, or set ORCHESTRATOR_HOME to a folder on another disk",
            )


def _no_job(name: str) -> JobError:
    return JobError(f'There is no job "{name}".', next_step=command("jobs", "list"))


def _running(name: str, next_verb: str) -> JobError:
    return JobError(f"The job {name} is already running.", next_step=command("jobs", next_verb, name))


def _behind(names: list[str]) -> str | None:
    """Return what a job waits for: the last of the jobs before it, which waits for the others."""
    if not names:  # its turn has just come
        return None
    others = len(names) - 1
    if others:
        return f"behind {names[-1]} and {others} more"
    return f"behind {names[-1]}"


def _opened_log(job: JobFolder) -> IO[bytes]:
    """Open the log of a job; an empty one where there is none. Raises JobError when it cannot be read."""
    try:
        return job.log.open("rb")
    except FileNotFoundError:
        return BytesIO()
    except OSError as error:
        message = f"The log of {job.name}, {job.log}, cannot be read: {error.strerror}."
        raise JobError(message, next_step="check what lies there, and its permissions") from error


@contextmanager
def _held(*files: IO[str]) -> Iterator[tuple[int, ...]]:
    """Yield descriptors of locked files for a child, none of which its own stdin, stdout or stderr replaces.

    A lock belongs to the open file, so it is kept as long as one of its descriptors is open in any process.
    """
    held = []
    for file in files:
        held.append(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_DESCRIPTOR))
    try:
        yield tuple(held)
    finally:
        for descriptor in held:
            os.close(descriptor)
