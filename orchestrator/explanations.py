"""Why a job stands where it does: cause, evidence, next command."""

from collections import deque
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.events import ATTEMPT_PHASE, Failed, Phase, Step, Warned, parse
from orchestrator.targets.base import JobDescription, JobStatus

_EVIDENCE_LINES = 5


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
    """Read the log once and say what it means for this status."""
    step, failed, plain = _digest(log)
    cause, _, advice = (description.failure_reason or "").partition(" Next: ")
    done = f"{step.step} of {step.of} steps are done" if step else "no step is done yet"
    match description.status:
        case JobStatus.FAILED:
            cause = cause or "It failed without a reason."
            return Explanation(
                status=description.status,
                cause=f"{cause} {done.capitalize()}.",
                evidence=_evidence(failed, plain),
                next_step=advice or _go_on(description.name, checkpoint_step),
            )
        case JobStatus.STOPPED:
            cause, next_step = f"It was asked to stop; {done}.", _go_on(description.name, checkpoint_step)
        case JobStatus.COMPLETED:
            cause, next_step = "It is complete.", f"python -m orchestrator jobs show {description.name}"
        case _:
            cause, next_step = f"It is running; {done}.", f"python -m orchestrator jobs logs -f {description.name}"
    return Explanation(status=description.status, cause=cause, evidence=(), next_step=next_step)


def _digest(log: Iterable[str]) -> tuple[Step | None, Failed | None, list[str]]:
    step: Step | None = None
    failed: Failed | None = None
    plain: deque[str] = deque(maxlen=_EVIDENCE_LINES)
    for line in log:
        match parse(line):
            case Phase(name=name) if name == ATTEMPT_PHASE:
                failed = None  # what an earlier attempt died of explains nothing now
                plain.clear()
            case Step() as latest:
                step = latest
            case Failed() as reported:
                failed = reported
            case Warned(message=message):
                plain.append(message)
            case None if line.strip():
                plain.append(line)
    return step, failed, list(plain)


def _evidence(failed: Failed | None, plain: list[str]) -> tuple[str, ...]:
    # What a library printed before an orderly failure is noise; before a crash it is all there is.
    return (f"{failed.kind}: {failed.message}",) if failed and failed.kind != "bug" else tuple(plain)


def _go_on(name: str, checkpoint_step: int | None) -> str:
    where = "from the beginning" if checkpoint_step is None else f"from step {checkpoint_step}"
    return f"python -m orchestrator jobs retry {name}  (goes on {where})"
