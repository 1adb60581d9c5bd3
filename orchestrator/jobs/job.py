"""Submit jobs and watch them, on any target."""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from orchestrator.adapters.evaluations import Outcome, inspect_evaluation
from orchestrator.adapters.images import inspect_images
from orchestrator.adapters.registry import AGAIN, inspect, made_again
from orchestrator.aws.instances import instances
from orchestrator.contract.command_line import command
from orchestrator.contract.environment import STOP_GRACE_SECONDS
from orchestrator.contract.events import Event, Step, parse
from orchestrator.contract.problem import did_you_mean
from orchestrator.errors import AccountError, JobError, JobExistsError, OrchestratorError, ServiceError
from orchestrator.jobs.exchanges import has_labels, has_rounds, require_labels, waits_for_labels
from orchestrator.jobs.explanation import Explanation, explain, without_result
from orchestrator.planning.plan import Plan
from orchestrator.planning.pricing import actual
from orchestrator.planning.training_request import is_job_of
from orchestrator.requests import Made, Request, identity_of, made_by
from orchestrator.targets.base import BilledAttempt, JobDescription, JobStatus, Target, deleting

_LIST = command("jobs", "list")
ENDED_EARLY = {JobStatus.FAILED, JobStatus.STOPPED}


class Job:
    """A handle on a submitted job."""

    def __init__(self, target: Target, name: str) -> None:
        self.target = target
        self.name = name

    def describe(self) -> JobDescription:
        """Return what is known of the job now."""
        return self.target.describe(self.name)

    def log_lines(self, *, follow: bool = False, latest_attempt: bool = False) -> Iterator[str]:
        """Yield the log's lines, new ones too until the job ends if `follow`."""
        return self.target.log_lines(self.name, follow=follow, latest_attempt=latest_attempt)

    def events(self, *, follow: bool = False, latest_attempt: bool = False) -> Iterator[Event]:
        """Yield the events that the job logged."""
        lines = self.log_lines(follow=follow, latest_attempt=latest_attempt)
        for line in lines:
            event = parse(line)
            if event is not None:
                yield event

    def last_step(self) -> int | None:
        """Return the highest optimizer step that the job logged; None before its first."""
        steps = [event.step for event in self.events() if isinstance(event, Step)]
        return max(steps, default=None)

    def location(self, path: str) -> str:
        """Return where a file of the job lies on this machine; its path within the job where that ran elsewhere."""
        root = self.target.root(self.name)
        if root is None:
            return path
        return str(root / path)

    def wait(self) -> JobDescription:
        """Wait until the job has ended and return its description."""
        while not self.target.wait_for_end(self.name, seconds=60):
            pass
        return self.describe()

    def stop(self, *, now: bool = False, grace_seconds: float = STOP_GRACE_SECONDS) -> JobDescription:
        """Ask the job to save a checkpoint and end; kill it when it has not ended after the grace, or at once if `now`.

        Returns its description once it has ended.
        """
        if now:
            self.target.kill(self.name)
            return self.wait()
        self.target.stop(self.name)
        has_ended = self.target.wait_for_end(self.name, grace_seconds)
        if not has_ended:
            self.target.kill(self.name)
        return self.wait()

    def remove(self, *, adapter: bool) -> None:
        """Delete the ended job and free its name, with `adapter` its adapter too; raises JobError while it runs."""
        self.target.discard(self.name, adapter=adapter)

    def resume(self) -> None:
        """Resume from the newest checkpoint.

        Raises JobError when the job is complete or has not ended, and when the labels that it waits for are not there.
        """
        description = self.describe()
        status = description.status
        if status not in ENDED_EARLY:
            verb = "wait"
            if status.is_final:
                verb = "show"
            raise JobError(
                f"The job {self.name} is {status}; only a job that failed or was stopped can be resumed.",
                next_step=command("jobs", verb, self.name),
            )
        require_labels(self.target, description)
        self.target.resume(self.name)

    def explain(self) -> Explanation:
        """Explain the job's status: cause, evidence and next command."""
        description = self.describe()
        if description.status is JobStatus.COMPLETED:
            problem = self.finished().problem
            if problem is not None:
                return without_result(problem)
        checkpoint_step = self.target.checkpoint_step(self.name)
        try:
            log = self.log_lines(latest_attempt=True)
            return explain(description, log, checkpoint_step)
        except JobError as error:  # the log cannot be read
            return explain(description, [error.message], checkpoint_step)

    def finished(self) -> Outcome:
        """Look at what a complete job made: what it says, or why it cannot be used."""
        store = self.target.store
        try:
            description = self.describe()
            prefix = store.name(description.output)
            if description.makes is Made.EVALUATION:
                return inspect_evaluation(store, prefix, self.name)
            if description.makes is Made.IMAGES:
                return inspect_images(store, prefix, self.name)
            found = inspect(store, prefix)
        except OrchestratorError as error:
            return Outcome(problem=error)
        problem = found.problem
        if problem is not None and problem.next_step == AGAIN:
            problem.next_step = made_again(self.name)
        return Outcome(found.manifest, problem)


class Submission(NamedTuple):
    """What a submit did."""

    job: Job
    started: bool
    """False when the same job was submitted before and runs or is complete."""


def submit(
    planned: Plan,
    target: Target,
    *,
    resume: bool = False,
    restart: bool = False,
) -> Submission:
    """Start the planned job, or attach to it when it was submitted before. Idempotent.

    A job that ended early is resumed with `resume` and started from its beginning with `restart`. Raises JobError when
    neither is given and it has done steps, so that nothing starts over silently.
    """
    request = planned.request
    job = Job(target, request["TrainingJobName"])
    if not target.has(job.name):
        if resume:
            raise nothing_to_resume()
        return _start(job, request, lambda: target.create(request))
    description = job.describe()
    status = description.status
    if status is JobStatus.DELETING:
        raise deleting(job.name)
    if restart:
        return _restart(job, request, status)
    if waits_for_labels(description):
        require_labels(target, description)
        return _start(job, request, lambda: target.resume(job.name, request))
    if status in ENDED_EARLY:
        return _resume(job, request, resume=resume)
    if status is JobStatus.COMPLETED:
        problem = job.finished().problem
        if problem is not None:
            message = f"The job {job.name} is complete, but its result cannot be used. {problem.message}"
            raise JobError(message, next_step=problem.next_step)
    return Submission(job, started=False)


def starts_again(job: Job, *, resume: bool, restart: bool) -> bool:
    """Return whether `submit` starts a job that was submitted before, rather than refusing it or attaching to it."""
    if not job.target.has(job.name):
        return False
    description = job.describe()
    status = description.status
    if restart:
        return status.is_final
    if waits_for_labels(description):
        return has_labels(job.target, description)
    if resume or status not in ENDED_EARLY:
        return status in ENDED_EARLY
    has_begun = job.target.checkpoint_step(job.name) is not None or job.last_step() is not None
    return not has_begun and not has_rounds(job.target, job.name)


def nothing_to_resume() -> JobError:
    """Return the error of a job that is to go on and was never submitted."""
    return JobError("There is no earlier run of this job to resume.", next_step="submit it without --resume")


def _restart(job: Job, request: Request, status: JobStatus) -> Submission:
    if not status.is_final:
        message = f"The job {job.name} is running."
        raise JobError(message, next_step=command("jobs", "stop", job.name))
    return _start(job, request, lambda: job.target.restart(request))


def _resume(job: Job, request: Request, *, resume: bool) -> Submission:
    if made_by(request) is not Made.ADAPTER:  # nothing is lost: the images that it has drawn are kept
        return _start(job, request, lambda: job.target.resume(job.name, request))
    step = job.target.checkpoint_step(job.name)
    asked_people = step is None and has_rounds(job.target, job.name)
    if step is None and not asked_people:
        if not resume:
            _require_nothing_done(job)
        return _restart(job, request, JobStatus.FAILED)  # with the current code
    if not resume:
        what = "has asked people about its first round" if asked_people else f"has a checkpoint at step {step}"
        message = (
            f"This job ended early before; it {what}. "
            "Submit with --resume to continue from there, or with --restart to start over."
        )
        raise JobError(message, next_step=command("jobs", "retry", job.name))
    return _start(job, request, lambda: job.target.resume(job.name, request))


def _require_nothing_done(job: Job) -> None:
    """Raise JobError when the job has done steps: with no checkpoint, they are lost when it starts over."""
    step = job.last_step()
    if step is not None:
        message = f"This job ended early before, after step {step}, and has no checkpoint to resume from."
        raise JobError(message, next_step="submit it with --restart to start over")


def _start(job: Job, request: Request, start: Callable[[], None]) -> Submission:
    try:
        start()
    except JobExistsError:  # another submit of the same job was faster
        if job.describe().identity != identity_of(request):
            raise
        return Submission(job, started=False)
    return Submission(job, started=True)


def find(name: str, targets: Sequence[Target]) -> Job:
    """Return the first target's job of that name, or else the only job that is meant; raises JobError.

    A name given with --name means its own job, though others begin with it (those of a sweep); else the beginning of a
    job's name is enough.
    A target that cannot be reached hides none of the others' jobs.
    """
    if not name:
        raise JobError("The name of the job is empty.", next_step=_LIST)
    matches: list[Job] = []
    known: list[str] = []
    for target in targets:
        try:
            names = target.names()
        except (AccountError, ServiceError):
            if not matches:
                raise
            continue
        if name in names:
            return Job(target, name)
        known += names
        for known_name in names:
            if known_name.startswith(name):
                matches.append(Job(target, known_name))
    if not matches:
        raise _unknown(name, known)
    named = [job for job in matches if is_job_of(name, job.name)]
    meant = named or matches
    if len(meant) > 1:
        raise _ambiguous(name, meant)
    return meant[0]


def _ambiguous(name: str, meant: Sequence[Job]) -> JobError:
    choices = ", ".join(f"{job.name} ({job.target.name})" for job in meant)
    next_step = "give more of the name"
    if len({job.target.name for job in meant}) > 1:
        next_step += ", or add --target"
    return JobError(f'"{name}" is ambiguous: {choices}.', next_step=next_step)


def _unknown(name: str, known: Sequence[str]) -> JobError:
    message = f'There is no job "{name}"'
    hint = "no job was submitted yet."
    if known:
        hint = did_you_mean(name, known)
    if hint:
        message = f"{message}; {hint}"
    return JobError(message, next_step=_LIST)


def cost(description: JobDescription) -> Decimal | None:
    """Return the cost at list price of all attempts that have ended.

    None when nothing was billed yet, or ever, and when the price of one of the instance types is not known.
    """
    if not description.billed_attempts:
        return None
    total = Decimal(0)
    for attempt in description.billed_attempts:
        usd = _cost_of(attempt)
        if usd is None:
            return None
        total += usd
    return total


def _cost_of(attempt: BilledAttempt) -> Decimal | None:
    """Return what an attempt cost; None for an instance type that is not in the price list, or has no price there."""
    chosen = instances().get(attempt.instance_type)
    if chosen is None:
        return None
    return actual(chosen, attempt.instance_count, attempt.region, attempt.seconds)
