"""How the attempts of one job are named where a job cannot be started twice.

To the service, going on with a job is a new job: `NAME`, then `NAME-r2`, `NAME-r3` and so on.
"""

import re
from collections.abc import Iterable

_JOB = re.compile(r"(?P<name>.+-[0-9a-f]{10})(?:-r(?P<number>[1-9]\d*))?")


def attempt_name(job: str, number: int) -> str:
    """Return what the service calls the attempt of that number, the first being 1."""
    return job if number == 1 else f"{job}-r{number}"


def job_of(attempt: str) -> str | None:
    """Return the job that an attempt belongs to, or None for a name that is none of ours."""
    match = _JOB.fullmatch(attempt)
    return match["name"] if match else None


def number_of(attempt: str) -> int:
    """Return an attempt's number."""
    match = _JOB.fullmatch(attempt)
    return int(match["number"] or 1) if match else 1


def attempts_of(job: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that are attempts of the job, in their order."""
    own = [name for name in names if job_of(name) == job]
    return sorted(own, key=number_of)
