"""The names of a job's attempts, as SageMaker cannot restart a training job.

Each attempt is a training job of its own: `NAME`, then `NAME-r2`, `NAME-r3` and so on.
"""

import re
from collections.abc import Iterable

_JOB = re.compile(r"(?P<name>.+-[0-9a-f]{10})(?:-r(?P<number>[1-9]\d*))?")


def attempt_name(job: str, number: int) -> str:
    """Return the name of the attempt of that number, counted from 1."""
    if number == 1:
        return job
    return f"{job}-r{number}"


def job_of(attempt: str) -> str | None:
    """Return the job that an attempt belongs to, or None for a name of another form than ours."""
    match = _JOB.fullmatch(attempt)
    if match is None:
        return None
    return match["name"]


def number_of(attempt: str) -> int:
    """Return an attempt's number, counted from 1."""
    match = _JOB.fullmatch(attempt)
    if match is None or match["number"] is None:
        return 1
    return int(match["number"])


def attempts_of(job: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that are attempts of the job, in their order."""
    own = [name for name in names if job_of(name) == job]
    return sorted(own, key=number_of)
