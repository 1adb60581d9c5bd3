"""Why a job stands where it does: cause, evidence, next command."""

from collections import deque
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.events import Failed, Resumed, Step, Warned, parse
from orchestrator.jobs.failure_patterns import Diagnosis, diagnose
from orchestrator.targets.base import JobDescription, JobStatus

_EVIDENCE_LINES = 5
# Stages of the service in which no container runs: before the first, and again when its machine was taken back.
_WITHOUT_CONTAINER = {
    **dict.fromkeys(
        ("Interrupted", "Restarting", "Starting", "Pending", "LaunchingMLInstances"), "waits for an instance"
    ),
    **dict.fromkeys(("Downloading", "PreparingTrainingStack", "DownloadingTrainingImage"), "gets its instance ready"),
}


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


def explain(description: JobDescription, log: Iterable[str], checkpoint_step: int | None) -> Explanation:
    """Read the log of the latest attempt once and say what it means for this status."""
    progress, failed, plain = _digest(log)
    done = progress or (f"{checkpoint_step} steps are done" if checkpoint_step else "no step is done yet")
    retry = f"A retry goes on {'from the beginning' if checkpoint_step is None else f'from step {checkpoint_step}'}."
    reason, verb = description.failure_reason, "retry"
    # What the training side, or the worker of this machine, has said of itself needs no guessing.
    said = description.region is None or (failed is not None and failed.kind != "bug")
    known = None if said else diagnose(reason, plain)
    evidence: tuple[str, ...] = ()
    match description.status:
        case JobStatus.FAILED:
            cause = f"{_cause(reason, known) or 'It failed without a reason.'} {done.capitalize()}. {retry}"
            evidence = (known.evidence,) if known else _evidence(failed, plain)
        case JobStatus.STOPPED:
            cause = f"{_cause(reason, known) or 'It was asked to stop.'} {done.capitalize()}. {retry}"
        case JobStatus.COMPLETED:
            cause, verb = "It is complete.", "show"
        case JobStatus.STOPPING:
            cause, verb = f"It is stopping; {done}.", "wait"
        case JobStatus.IN_PROGRESS:
            cause, verb = _under_way(description.stage or "", progress, done, checkpoint_step), "wait"
    usual = f"python -m orchestrator jobs {verb} {description.name}"
    told = known.signature.next_step.format(job=description.name) if known and verb == "retry" else usual
    own = failed.next_step if said and failed is not None and verb == "retry" else ""
    next_step = description.next_step or own or told
    return Explanation(status=description.status, cause=cause, evidence=evidence, next_step=next_step)


def _under_way(stage: str, progress: str, done: str, checkpoint_step: int | None) -> str:
    """Say what a job does that has not ended; `progress` is what a container of this attempt came to."""
    if stage not in _WITHOUT_CONTAINER:
        return f"It is running; {done}."
    lost = "Its instance was taken back. " if progress or stage == "Interrupted" else ""
    start = "begins" if checkpoint_step is None else f"goes on from step {checkpoint_step}"
    return f"{lost}It {_WITHOUT_CONTAINER[stage]} ({stage}) and then {start} by itself."


def _cause(reason: str | None, known: Diagnosis | None) -> str:
    """Return the service's words, and what they mean when that is known."""
    words = [reason.rstrip(".") + "." if reason else "", known.signature.cause if known else ""]
    return " ".join(filter(None, words))


def _digest(log: Iterable[str]) -> tuple[str, Failed | None, list[str]]:
    """Return how far the attempt came, the failure that was reported, and the last plain lines."""
    progress, failed = "", None
    plain: deque[str] = deque(maxlen=_EVIDENCE_LINES)
    for line in log:
        match parse(line):
            case Step(step=step, of=of):
                progress = f"{step} of {of} steps are done"
            case Resumed(step=step):
                progress = f"{step} steps are done"
            case Failed() as reported:
                failed = reported
            case Warned(message=message):
                plain.append(message)
            case None if line.strip():
                plain.append(line)
    return progress, failed, list(plain)


def _evidence(failed: Failed | None, plain: list[str]) -> tuple[str, ...]:
    # What a library printed before an orderly failure is noise; before a crash it is all there is.
    return (f"{failed.kind}: {failed.message}",) if failed and failed.kind != "bug" else tuple(plain)
