"""One thing that is wrong, in the three parts a person needs: where, what, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

MISSING = "is missing"
_MAX_CHOICES = 10  # more than these are no help in a message


class Problem(BaseModel):
    """A single finding; checks collect them so that all are reported at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    where: str
    """The field, file or channel at fault."""
    what: str
    """What is wrong with it."""
    fix: str = ""
    """What to do about it."""

    def render(self) -> str:
        """Return the finding as one line."""
        text = f"{self.where}: {self.what}"
        return f"{text} ({self.fix})" if self.fix else text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean "x"?` for the known word closest to `word`, or else a choice that is small."""
    choices = sorted(known)
    close = get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    if 0 < len(choices) <= _MAX_CHOICES:
        return f"choose from: {', '.join(choices)}"
    return ""


def problems_of(error: ValidationError, known_fields: Iterable[str] = ()) -> list[Problem]:
    """Translate pydantic's findings, all of them, into problems that name the field and the value."""
    known = list(known_fields)
    return [_problem(finding, known) for finding in error.errors()]


def _problem(finding: Any, known: list[str]) -> Problem:  # pydantic's ErrorDetails
    location = [str(part) for part in finding["loc"]]
    where = ".".join(location) or "job"
    kind = finding["type"]
    if kind == "extra_forbidden":
        fix = did_you_mean(location[-1], known)
        return Problem(where=where, what="there is no such field", fix=fix)
    if kind == "value_error":
        error = finding["ctx"]["error"]
        return Problem(where=where, what=str(error))
    if kind == "missing":
        return Problem(where=where, what=MISSING)
    message = finding["msg"].removeprefix("Input ").strip()
    return Problem(where=where, what=f"{message}, not {finding['input']!r}")
