"""Why a job stands where it does: cause, evidence, next command."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.command_line import command
from orchestrator.contract.events import Failed, Resumed, Step, Warned, parse
from orchestrator.jobs.failure_patterns import Diagnosis, diagnose
from orchestrator.targets.base import JobDescription, JobStatus
from orchestrator.targets.names import TargetName

_EVIDENCE_LINES = 5
# Stages of the service in which no container runs: before the first, and again when its instance was taken back.
_WAITING = {"Interrupted", "Restarting", "Starting", "Pending", "LaunchingMLInstances"}
_PREPARING = {"Downloading", "PreparingTrainingStack", "DownloadingTrainingImage"}


class Explanation(BaseModel):
    """A job's state in words."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    status: JobStatus
    """Where the job stands."""
    cause: str
    """Why."""
    evidence: tuple[str, ...]
    """Lines of the log that show it."""
    next_step: str
    """What to type."""


class _Attempt(NamedTuple):
    """What the log says of the latest attempt."""

    progress: str
    """How far its container came, in words; empty when it did no step."""
    failed: Failed | None
    """The failure it reported."""
    last_lines: list[str]
    """The last lines that are no events, and warnings."""


def explain(
    description: JobDescription,
    log: Iterable[str],
    checkpoint_step: int | None,
) -> Explanation:
    """Read the log of the latest attempt once and say what it means for this status."""
    attempt = _read(log)
    name = description.name
    evidence: tuple[str, ...] = ()
    match description.status:
        case JobStatus.FAILED:
            diagnosis = _diagnosis(description, attempt)
            cause = _why_ended(description, diagnosis) or "It failed without a reason."
            cause = f"{cause} {_what_is_kept(attempt, checkpoint_step)}"
            evidence = _evidence(attempt, diagnosis)
            next_step = _after_early_end(description, attempt, diagnosis)
        case JobStatus.STOPPED:
            diagnosis = _diagnosis(description, attempt)
            cause = _why_ended(description, diagnosis) or "It was asked to stop."
            cause = f"{cause} {_what_is_kept(attempt, checkpoint_step)}"
            next_step = _after_early_end(description, attempt, diagnosis)
        case JobStatus.COMPLETED:
            cause = "It is complete."
            next_step = command("jobs", "show", name)
        case JobStatus.STOPPING:
            cause = f"It is stopping; {_steps_done(attempt, checkpoint_step)}."
            next_step = command("jobs", "wait", name)
        case JobStatus.IN_PROGRESS:
            cause = _under_way(description.stage or "", attempt, checkpoint_step)
            next_step = command("jobs", "wait", name)
    return Explanation(
        status=description.status,
        cause=cause,
        evidence=evidence,
        next_step=next_step,
    )


def _read(log: Iterable[str]) -> _Attempt:
    progress = ""
    failed = None
    last_lines: deque[str] = deque(maxlen=_EVIDENCE_LINES)
    for line in log:
        match parse(line):
            case Step(step=step, of=of):
                progress = f"{step} of {of} steps are done"
            case Resumed(step=step):
                progress = f"{step} steps are done"
            case Failed() as reported:
                failed = reported
            case Warned(message=message):
                last_lines.append(message)
            case None if line.strip():
                last_lines.append(line)
    return _Attempt(progress, failed, list(last_lines))


def _is_foreseen(failed: Failed | None) -> bool:
    """Whether the training side reported a failure that it knows, which needs no guessing."""
    return failed is not None and failed.kind != "bug"


def _says_why(description: JobDescription, attempt: _Attempt) -> bool:
    """Whether the job has said itself why it ended: the training did, or the worker of this machine."""
    return description.target is not TargetName.SAGEMAKER or _is_foreseen(attempt.failed)


def _diagnosis(description: JobDescription, attempt: _Attempt) -> Diagnosis | None:
    """Recognise the failure by the service's reason or the log, where the job has not said itself what it was."""
    if _says_why(description, attempt):
        return None
    return diagnose(description.failure_reason, attempt.last_lines)


def _why_ended(description: JobDescription, diagnosis: Diagnosis | None) -> str:
    """Return the reason that was given, and what it means when that is known."""
    sentences = []
    if description.failure_reason:
        sentences.append(description.failure_reason.rstrip(".") + ".")
    if diagnosis is not None:
        sentences.append(diagnosis.pattern.cause)
    return " ".join(sentences)


def _what_is_kept(attempt: _Attempt, checkpoint_step: int | None) -> str:
    """Return how far the job came, and where a retry begins."""
    done = _steps_done(attempt, checkpoint_step).capitalize()
    if checkpoint_step is None:
        return f"{done}. A retry goes on from the beginning."
    return f"{done}. A retry goes on from step {checkpoint_step}."


def _steps_done(attempt: _Attempt, checkpoint_step: int | None) -> str:
    if attempt.progress:
        return attempt.progress
    if checkpoint_step:
        return f"{checkpoint_step} steps are done"
    return "no step is done yet"


def _evidence(attempt: _Attempt, diagnosis: Diagnosis | None) -> tuple[str, ...]:
    """Return the lines that show why a job failed."""
    if diagnosis is not None:
        return (diagnosis.evidence,)
    # What a library printed before an orderly failure is noise; before a crash it is all there is.
    if attempt.failed is not None and _is_foreseen(attempt.failed):
        return (f"{attempt.failed.kind}: {attempt.failed.message}",)
    return tuple(attempt.last_lines)


def _after_early_end(
    description: JobDescription,
    attempt: _Attempt,
    diagnosis: Diagnosis | None,
) -> str:
    """Return what to type: what the job says itself, else what its diagnosis says, else a retry."""
    if description.next_step:
        return description.next_step
    if diagnosis is not None:
        return diagnosis.pattern.next_step.format(job=description.name)
    if attempt.failed is not None and attempt.failed.next_step and _says_why(description, attempt):
        return attempt.failed.next_step
    return command("jobs", "retry", description.name)


def _under_way(stage: str, attempt: _Attempt, checkpoint_step: int | None) -> str:
    """Say what a job does that has not ended."""
    if stage in _WAITING:
        doing = "waits for an instance"
    elif stage in _PREPARING:
        doing = "gets its instance ready"
    else:
        return f"It is running; {_steps_done(attempt, checkpoint_step)}."
    was_interrupted = attempt.progress or stage == "Interrupted"
    lost = "Its instance was taken back. " if was_interrupted else ""
    start = "begins" if checkpoint_step is None else f"goes on from step {checkpoint_step}"
    return f"{lost}It {doing} ({stage}) and then {start} by itself."
