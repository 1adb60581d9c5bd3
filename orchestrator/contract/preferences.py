"""Stored preferences: pairs of pictures of one prompt of which people, or a program, preferred one."""

import json
from collections.abc import Collection
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.contract.problem import Problem, problems_of

PREFERENCES_FILE = "preferences.jsonl"
"""Beside the pictures, an object a line: {"chosen": "1.png", "rejected": "2.png", "prompt": "a dog on a beach"}."""
_FIX = 'write {"chosen": "1.png", "rejected": "2.png", "prompt": "..."}'


class Preference(BaseModel):
    """A pair of pictures."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    chosen: str
    """File name of the better picture."""
    rejected: str
    """File name of the other one."""
    prompt: str = Field(min_length=1, max_length=2000)
    """What both were to show."""


class ReadPreferences(NamedTuple):
    """What a file of preferences holds."""

    pairs: list[Preference]
    problems: list[Problem]


def parse_preferences(data: bytes, pictures: Collection[str]) -> ReadPreferences:
    """Read a file of preferences about some pictures, by their names; what is wrong with a line is a problem."""
    pairs = []
    problems = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{PREFERENCES_FILE} line {number}"
        try:
            pair = Preference.model_validate(json.loads(line))
        except ValidationError as error:
            for found in problems_of(error, Preference.model_fields):
                problems.append(Problem(where=f"{where}, {found.where}", what=found.what, fix=_FIX))
            continue
        except (ValueError, RecursionError):
            problems.append(Problem(where=where, what="is no JSON", fix=_FIX))
            continue
        faults = _faults(pair, pictures)
        problems += [Problem(where=where, what=what, fix=_FIX) for what in faults]
        pairs.append(pair)
    if not pairs and not problems:
        problems.append(Problem(where=PREFERENCES_FILE, what="holds no pair", fix=_FIX))
    return ReadPreferences(pairs, problems)


def _faults(pair: Preference, pictures: Collection[str]) -> list[str]:
    """Return what is wrong with a pair."""
    faults = []
    for name in (pair.chosen, pair.rejected):
        if name not in pictures:
            faults.append(f'names "{name}", and there is no such picture')
    if pair.chosen == pair.rejected:
        faults.append("names one picture twice")
    return faults
