"""Explain the status of a job: cause, evidence, next command."""

import re
import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.instances import instances, with_disk, with_memory
from orchestrator.contract.command_line import command
from orchestrator.contract.events import NOTE, Failed, Item, Phase, Resumed, Step, parse
from orchestrator.contract.labels import LABELS_PHASE, WAITS
from orchestrator.contract.plurals import counted
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.exchanges import waits_for_labels
from orchestrator.jobs.failure_patterns import TABLE, Diagnosis, diagnose
from orchestrator.jobs.heartbeat import Heartbeat, Silence
from orchestrator.requests import Made
from orchestrator.targets.base import JobDescription, JobStatus
from orchestrator.targets.names import TargetName

_EVIDENCE_LINES = 5
_WAITS = re.compile(rf"Round \d+{WAITS}[^.]*\.")
# Values of SecondaryStatus while no container runs: at the start, and again when the instance was taken back.
_WAITING = {
    "Interrupted",
    "Restarting",
    "Starting",
    "Pending",
    "LaunchingMLInstances",
}
# Kinds of failures whose cause is in what the job reads, which a retry reads again.
_SAME_AGAIN = {
    "adapter",
    "base-model",
    "changed-input",
    "dataset",
    "gated-model",
    "learns-nothing",
    "recipe",
    "resume",
    "scorer",
    "token",
}
_PREPARING = {
    "Downloading",
    "PreparingTrainingStack",
    "DownloadingTrainingImage",
}


class Explanation(BaseModel):
    """The status of a job in words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: JobStatus
    """Status of the job."""
    cause: str
    """Why it has that status."""
    evidence: tuple[str, ...]
    """Lines of the log that show it."""
    next_step: str
    """The next command."""


class _Attempt(NamedTuple):
    """What the log says of the latest attempt."""

    progress: str
    """Optimizer steps it did, or images that an evaluation or a batch drew, in words; empty when it did no step."""
    failed: Failed | None
    """The failure it reported."""
    last_lines: list[str]
    """The last lines that libraries or the operating system printed: events and notes are no evidence of a crash."""
    heartbeat: Heartbeat
    """When it took its steps."""
    asks_people: bool
    """Whether it waits for labels, running."""


def explain(
    description: JobDescription,
    log: Iterable[str],
    checkpoint_step: int | None,
    now: float | None = None,
) -> Explanation:
    """Explain a status by the log of the latest attempt, which is read once; `now` is in seconds since 1970."""
    attempt = _read(log, draws=description.makes is not Made.ADAPTER)
    status, name, stage = description.status, description.name, description.stage
    evidence: tuple[str, ...] = ()
    match status:
        case JobStatus.FAILED | JobStatus.STOPPED:
            diagnosis = _diagnosis(description, attempt)
            why = _why_ended(description, diagnosis)
            cause = f"{why} {_what_is_kept(description, attempt, checkpoint_step)}"
            next_step = _after_early_end(description, attempt, diagnosis)
            if status is JobStatus.FAILED:
                evidence = _evidence(attempt, diagnosis)
        case JobStatus.COMPLETED:
            cause = "It is complete."
            next_step = command("jobs", "show", name)
        case JobStatus.STOPPING:
            done = _steps_done(attempt, checkpoint_step)
            cause = f"It is stopping; {done}."
            next_step = command("jobs", "wait", name)
        case JobStatus.QUEUED:
            turn = stage or "which is now"
            cause = f"It waits for its turn ({turn}) and then starts by itself."
            next_step = command("jobs", "wait", name)
        case JobStatus.IN_PROGRESS:
            cause = _under_way(stage or "", attempt, checkpoint_step)
            next_step = _meanwhile(name, attempt)
            silence = attempt.heartbeat.silence(now or time.time())
            if silence is not None and stage not in _WAITING | _PREPARING:
                cause = f"{cause} {_hangs(silence)}"
                next_step = _started_again(name)
        case JobStatus.DELETING:
            cause = "It is being deleted. Its adapter, if it made one, stays in the bucket."
            next_step = command("jobs", "list")
        case JobStatus.UNKNOWN:
            cause = f"The service gives it a status that this version does not know ({stage})."
            next_step = command("jobs", "logs", name)
    return Explanation(
        status=status,
        cause=cause,
        evidence=evidence,
        next_step=next_step,
    )


def without_result(problem: OrchestratorError) -> Explanation:
    """Explain a complete job whose adapter, evaluation or images cannot be used."""
    return Explanation(
        status=JobStatus.COMPLETED,
        cause=f"It is complete, but its result cannot be used. {problem.message}",
        evidence=(),
        next_step=problem.next_step,
    )


def _read(log: Iterable[str], *, draws: bool) -> _Attempt:
    progress = "no image is drawn yet" if draws else ""
    failed = None
    last_lines: deque[str] = deque(maxlen=_EVIDENCE_LINES)
    heartbeat = Heartbeat()
    asks_people = False
    for line in log:
        event = parse(line)
        if event is not None:
            heartbeat.hear(event)
        match event:
            case Phase(name=name):
                asks_people = name.startswith(LABELS_PHASE)
            case Step(step=step, of=of):
                progress = _done(step, of)
            case Resumed(step=step):
                progress = _done(step)
            case Item(done=done, of=of) if draws:
                progress = f"{done} of {counted(of, 'image')} are drawn"
            case Failed() as reported:
                failed = reported
            case None if line.strip() and not line.startswith(NOTE):
                last_lines.append(line)
    return _Attempt(progress, failed, list(last_lines), heartbeat, asks_people)


def _meanwhile(name: str, attempt: _Attempt) -> str:
    """Return what to do while a job runs."""
    if attempt.asks_people:
        return command("label", name)
    return command("jobs", "wait", name)


def _started_again(name: str) -> str:
    """Return the commands that end an attempt and begin another."""
    stop = command("jobs", "stop", name)
    again = command("jobs", "retry", name)
    return f"{stop} && {again}  # goes on from its newest checkpoint"


def _hangs(silence: Silence) -> str:
    """Return that no step has ended for long."""
    minutes = counted(silence.seconds / 60, "minute")
    return (
        f"But no step has ended for {minutes}, where one took {silence.usual:.2g} s: it hangs, or what it runs on is "
        "stopped or far too busy."
    )


def _is_known(failed: Failed | None) -> bool:
    """Whether training reported a failure of a known kind, which needs no diagnosis."""
    if failed is None:
        return False
    return failed.kind != "bug"


def _gives_reason(description: JobDescription, attempt: _Attempt) -> bool:
    """Whether the job itself gave the reason why it ended: training did, or the worker of a local job."""
    if description.target is not TargetName.SAGEMAKER:
        return True
    return _is_known(attempt.failed)


def _diagnosis(description: JobDescription, attempt: _Attempt) -> Diagnosis | None:
    """Recognise the failure by the service's reason or the log, unless the job itself gave the reason."""
    if _gives_reason(description, attempt):
        return None
    return diagnose(description.failure_reason, attempt.last_lines)


def _why_ended(description: JobDescription, diagnosis: Diagnosis | None) -> str:
    """Return the reason that was given and what it means, as far as they are known."""
    sentences = []
    if description.failure_reason:
        reason = _as_said(description.failure_reason).rstrip(".")
        sentences.append(f"{reason}.")
    if diagnosis is not None:
        sentences.append(diagnosis.pattern.cause)
    if sentences:
        return " ".join(sentences)
    if description.status is JobStatus.STOPPED:
        return "It was asked to stop."
    return "It failed without a reason."


def _as_said(reason: str) -> str:
    """Return a reason as the job gave it: of one that waits for people, without what the service writes around it."""
    waits = _WAITS.search(reason)
    return waits.group() if waits else reason


def _what_is_kept(description: JobDescription, attempt: _Attempt, checkpoint_step: int | None) -> str:
    """Return how many steps are done, and where a retry starts if it can end otherwise."""
    steps = _steps_done(attempt, checkpoint_step)
    done = steps.capitalize()
    draws = description.makes is not Made.ADAPTER
    if waits_for_labels(description):
        return f"{done}. The job goes on when its images are labelled."
    failed = attempt.failed
    if failed is not None and failed.kind in _SAME_AGAIN:
        return f"{done}. A retry would end in the same way."
    if draws:
        return f"{done}. A retry draws those that are missing."
    if checkpoint_step is None:
        return f"{done}. A retry starts from the beginning."
    return f"{done}. A retry resumes from step {checkpoint_step}."


def _steps_done(attempt: _Attempt, checkpoint_step: int | None) -> str:
    if attempt.progress:
        return attempt.progress
    if checkpoint_step:
        return _done(checkpoint_step)
    return "no step is done yet"


def _done(steps: int, of: int | None = None) -> str:
    """Return how many steps are done, of how many: "1 step is done", "5 of 10 steps are done"."""
    verb = "is" if steps == 1 else "are"
    if of is None:
        return f"{counted(steps, 'step')} {verb} done"
    return f"{steps} of {counted(of, 'step')} {verb} done"


def _evidence(attempt: _Attempt, diagnosis: Diagnosis | None) -> tuple[str, ...]:
    """Return the lines that show why a job failed."""
    if diagnosis is not None:
        return (diagnosis.evidence,)
    # Before a reported failure, what libraries printed is noise; before a crash it is the only evidence.
    failed = attempt.failed
    if failed is not None and _is_known(failed):
        return (f"{failed.kind}: {failed.message}",)
    return tuple(attempt.last_lines)


def _after_early_end(
    description: JobDescription,
    attempt: _Attempt,
    diagnosis: Diagnosis | None,
) -> str:
    """Return the next command: that of the job itself, else of the diagnosis, else a retry."""
    if waits_for_labels(description):
        return command("label", description.name)
    if description.next_step:
        return description.next_step
    failed = attempt.failed
    on_sagemaker = description.target is TargetName.SAGEMAKER
    if diagnosis is None and failed is not None and on_sagemaker:
        diagnosis = _of_the_instance(failed)
    if diagnosis is not None:
        next_step = diagnosis.pattern.next_step
        return next_step.format(
            job=description.name,
            more_disk=_more_disk(description.instance_type),
            more_memory=_more_memory(description.instance_type),
        )
    if failed is not None and failed.next_step and _gives_reason(description, attempt):
        return failed.next_step
    return command("jobs", "retry", description.name)


def _of_the_instance(failed: Failed) -> Diagnosis | None:
    """Return what helps against a failure that training reported, where that is another instance type.

    Training knows that its disk is full; which instances have a larger one it does not know.
    """
    for pattern in TABLE:
        if pattern.kind == failed.kind and "{more_" in pattern.next_step:
            return Diagnosis(pattern, failed.message)
    return None


def _more_disk(instance_type: str | None) -> str:
    """Return the option for an instance type with more disk than this one."""
    any_larger = "an --instance-type with a larger built-in disk"
    chosen = instances().get(instance_type or "")
    if chosen is None or chosen.disk_gb is None:
        return any_larger
    larger = with_disk(chosen, chosen.disk_gb + 1)
    if larger is None:
        return any_larger
    return f"--instance-type {larger.name}  # {larger.disk_gb} GB of disk instead of {chosen.disk_gb}"


def _more_memory(instance_type: str | None) -> str:
    """Return the option for an instance type with more main memory than this one."""
    any_larger = "an --instance-type with more main memory"
    chosen = instances().get(instance_type or "")
    if chosen is None:
        return any_larger
    larger = with_memory(chosen, chosen.memory_gib + 1)
    if larger is None:
        return any_larger
    return f"--instance-type {larger.name}  # {larger.memory_gib} GiB of memory instead of {chosen.memory_gib}"


def _under_way(stage: str, attempt: _Attempt, checkpoint_step: int | None) -> str:
    """Describe what a job that has not ended is doing."""
    if stage in _WAITING:
        doing = "is waiting for an instance"
    elif stage in _PREPARING:
        doing = "is preparing its instance"
    else:
        done = _steps_done(attempt, checkpoint_step)
        if attempt.asks_people:
            return f"It is running, and waits for people to label its images; {done}."
        return f"It is running; {done}."
    start = "starts"
    if checkpoint_step is not None:
        start = f"resumes from step {checkpoint_step}"
    text = f"It {doing} ({stage}) and then {start} by itself."
    if attempt.progress or stage == "Interrupted":
        return f"Its instance was taken back. {text}"
    return text
