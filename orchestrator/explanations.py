"""Why a job stands where it does: cause, evidence, next command."""

from collections import deque
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.events import Failed, Step, Warned, parse
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
    """Read the log of the latest attempt once and say what it means for this status."""
    step, failed, plain = _digest(log)
    done = f"{step[0]} of {step[1]} steps are done" if step else "no step is done yet"
    name = description.name
    evidence: tuple[str, ...] = ()
    match description.status:
        case JobStatus.FAILED:
            cause = f"{description.failure_reason or 'It failed without a reason.'} {done.capitalize()}."
            next_step, evidence = description.next_step or _go_on(name, checkpoint_step), _evidence(failed, plain)
        case JobStatus.STOPPED:
            cause, next_step = f"It was asked to stop; {done}.", _go_on(name, checkpoint_step)
        case JobStatus.COMPLETED:
            cause, next_step = "It is complete.", f"python -m orchestrator jobs show {name}"
        case JobStatus.STOPPING:
            cause, next_step = f"It is stopping; {done}.", f"python -m orchestrator jobs wait {name}"
        case JobStatus.IN_PROGRESS:
            cause, next_step = f"It is running; {done}.", f"python -m orchestrator jobs logs -f {name}"
    return Explanation(status=description.status, cause=cause, evidence=evidence, next_step=next_step)


def _digest(log: Iterable[str]) -> tuple[tuple[int, int] | None, Failed | None, list[str]]:
    """Return the last step with the number of all, the failure that was reported, and the last plain lines."""
    step: tuple[int, int] | None = None
    failed: Failed | None = None
    plain: deque[str] = deque(maxlen=_EVIDENCE_LINES)
    for line in log:
        match parse(line):
            case Step(step=done, of=of):
                step = (done, of)
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
