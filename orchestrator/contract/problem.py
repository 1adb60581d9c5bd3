"""One thing that is wrong, in the three parts a person needs: where, what, and what to do."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

MISSING = "is missing"
SHOULD_BE = "should be"
A_TEXT = "a text"
A_LIST = "a list"
_MAX_CHOICES = 10  # more than these are no help in a message
_SHOWN = 100
"""Characters of a value in a message."""
_SUBJECT = re.compile(r"(Input|String|List|Tuple|Dictionary|Value|Decimal input) ")
"""How pydantic begins its messages."""
_TYPE_NAME = re.compile(r"int|float|str|bool|constrained-\w+|.*\[.*\]")
"""Names of types, which pydantic puts into the location of a field that may be of several."""
_TOO_SHORT = "too_short"
_TOO_LONG = "too_long"
_WHOLE_NUMBER = "a whole number"
_NUMBER = "a number"
_TRUTH = "true or false"
_MAPPING = "`field: value` lines"
_MEANINGS = {
    "int_type": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_parsing_size": f"{_WHOLE_NUMBER} of fewer digits",
    "int_from_float": _WHOLE_NUMBER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "decimal_type": _NUMBER,
    "decimal_parsing": _NUMBER,
    "finite_number": "a finite number",
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "string_type": A_TEXT,
    "path_type": A_TEXT,
    "tuple_type": A_LIST,
    "list_type": A_LIST,
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
}
"""What a value should be, by pydantic's type of the fault, for people who do not know its terms."""


class Problem(BaseModel):
    """A single finding; checks collect them so that all are reported at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    """The field, file or channel at fault; empty where that is said elsewhere."""
    what: str
    """What is wrong with it."""
    fix: str = ""
    """What to do about it."""

    def render(self) -> str:
        """Return the finding as one line."""
        text = f"{self.where}: {self.what}".removeprefix(": ")
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


def problems_of(error: ValidationError, known_fields: Iterable[str] = (), *, whole: str = "job") -> list[Problem]:
    """Translate pydantic's findings, all of them, into problems that name the field and the value.

    `whole` is what a problem is said of that is of no field alone.
    """
    known = list(known_fields)
    problems = []
    alternatives: dict[str, list[_Finding]] = {}
    found = error.errors()
    places = [details["loc"] for details in found]
    for details in found:
        place = details["loc"]
        if details["type"] == _TOO_SHORT and any(other[: len(place)] == place != other for other in places):
            continue  # only without its items that are wrong themselves
        finding = _Finding.of(details, whole)
        if finding.field is None:
            problems.append(_problem(finding, known))
            continue
        alternatives.setdefault(finding.field, []).append(finding)
    for findings in alternatives.values():
        problems.append(_of_alternatives(findings, known))
    return problems


class _Finding(NamedTuple):
    """What pydantic found."""

    kind: str
    """Its type of the fault, such as "int_parsing"."""
    where: str
    """The field, in a person's notation: "prompts[1]"."""
    field: str | None
    """The field that may be of several types, for a finding about one of these; None for any other."""
    last: str
    """Name of the innermost field."""
    details: Any
    """All that pydantic says of it (ErrorDetails)."""

    @classmethod
    def of(cls, details: Any, whole: str) -> "_Finding":
        """Return a finding whose location is free of pydantic's names of types."""
        kind = details["type"]
        where = ""
        field = None
        last = ""
        for part in details["loc"]:
            if isinstance(part, int):
                where = f"{where}[{part}]"
            elif where and kind != "extra_forbidden" and _TYPE_NAME.fullmatch(part):
                field = where
            else:
                where = f"{where}.{part}".lstrip(".")
                last = part
        return cls(kind, where or whole, field, last, details)


def _of_alternatives(findings: list[_Finding], known: list[str]) -> Problem:
    """Return one problem for a value that is of none of the types that its field may have."""
    innermost = max(findings, key=lambda finding: len(finding.where))
    if innermost.where != innermost.field:  # one item of a list, whose other items are right
        return _problem(innermost, known)
    meanings = []
    for finding in findings:
        if finding.kind not in _MEANINGS:  # the type is right, and the value is not
            return _problem(finding, known)
        meanings.append(_MEANINGS[finding.kind])
    unique = " or ".join(dict.fromkeys(meanings))
    shown = _shown(innermost.details["input"])
    return Problem(where=innermost.where, what=f"{SHOULD_BE} {unique}, not {shown}")


def _problem(finding: _Finding, known: list[str]) -> Problem:
    where = finding.where
    kind = finding.kind
    if kind == "extra_forbidden":
        fix = did_you_mean(finding.last, known)
        return Problem(where=where, what="there is no such field", fix=fix)
    if kind == "value_error":
        error = finding.details["ctx"]["error"]
        return Problem(where=where, what=str(error))
    if kind == "missing":
        return Problem(where=where, what=MISSING)
    if kind == "string_unicode":
        return Problem(where=where, what="is not UTF-8 text")
    if kind == "string_too_short" and not finding.details["input"]:
        return Problem(where=where, what="is empty")
    message = _SUBJECT.sub("", finding.details["msg"])
    if kind in _MEANINGS:
        message = f"{SHOULD_BE} {_MEANINGS[kind]}"
    message, _, _ = message.partition(" after validation")
    shown = _shown(finding.details["input"])
    if kind in {_TOO_SHORT, _TOO_LONG}:
        shown = str(finding.details["ctx"]["actual_length"])
    return Problem(where=where, what=f"{message}, not {shown}")


def _shown(value: object) -> str:
    """Return a value as it is written in Python, shortened."""
    text = repr(value)
    if len(text) > _SHOWN:
        return f"{text[:_SHOWN]}..."
    return text
