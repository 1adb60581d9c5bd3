"""The jobs of a sweep: the product of all lists of values, each checked, and every problem of all of them at once."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from orchestrator.contract.problem import Problem
from orchestrator.contract.recipe import Recipe
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.specs.building import build_spec, declaration, is_list
from orchestrator.specs.job import JobSpec, is_name
from orchestrator.specs.job_file import parse_words
from orchestrator.sweeps.refusal import refusal

MOST_JOBS = 100
Words = Mapping[str, str]
Lists = Mapping[str, Sequence[str]]
"""The values of each field, as words of the command line."""

_HASH_DIGITS = 8
_LONGEST_NUMBER = 6  # digits before an exponent is shorter


class Variant(NamedTuple):
    """One job of a sweep."""

    stem: str
    """What the adapters of the sweep have in common: their name as it was given, or the recipe's."""

    settings: Words
    """What tells it from the others: each varied field and its value, as text."""
    spec: JobSpec


def expand(fields: Mapping[str, Any], pairs: Iterable[str]) -> list[Variant]:
    """Return a job for each combination of the values in `pairs` (`rank=4,8`); raises SpecError with every problem.

    Without a name each is the job that a single `submit` of those settings is, so that a sweep finds what is done. With
    one, each adapter's name says its settings; adding values to a list changes no name.
    """
    recipe = declaration(fields.get("recipe"))
    lists = _parse_lists(recipe, list(pairs))
    _check_count(lists)
    specs = _distinct(_build_all(fields, lists))
    if len(specs) == 1:
        raise _one_job_only()
    settings = _settings(specs, lists)
    varied = _varied_fields(settings)
    stem = specs[0].name or recipe.recipe_name()
    variants = []
    for spec, values in zip(_named(specs, settings), settings, strict=True):
        words = {field: _text(values[field]) for field in varied}
        variants.append(Variant(stem, words, spec))
    return variants


def _check_count(lists: Lists) -> None:
    count = math.prod(len(values) for values in lists.values())
    if count == 1:
        raise _one_job_only()
    if count > MOST_JOBS:
        message = f"This sweep has {count} jobs; at most {MOST_JOBS} are allowed."
        raise SpecError(message, next_step="vary fewer settings")


def _one_job_only() -> SpecError:
    return SpecError(
        "This is one job, not a sweep: no setting has two values.",
        next_step="write -s rank=4,8 for two jobs, or for this one: python -m orchestrator submit --help",
    )


def _settings(specs: Sequence[JobSpec], lists: Lists) -> list[dict[str, Any]]:
    """Return the value that each job has in each listed field of the recipe."""
    fields = [field for field in lists if not _is_of_machines(field)]
    settings = []
    for spec in specs:
        values = {}
        for field in fields:
            values[field] = getattr(spec.recipe, field)
        settings.append(values)
    return settings


def _varied_fields(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the fields that do not have the same value in all jobs."""
    first, *others = settings
    varied = []
    for field, value in first.items():
        if any(_text(other[field]) != _text(value) for other in others):
            varied.append(field)
    return varied


def _parse_lists(recipe: type[Recipe], pairs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the values of each field; one that stands alone is a list of one."""
    parse_words(pairs)  # raises SpecError with the problems of all
    problems: list[Problem] = []
    lists: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        ((field, word),) = parse_words([pair]).items()
        values = _parse_values(recipe, field, word)
        if field in lists:
            problems.append(Problem(where=field, what="stands twice", fix=f"write -s {field}=one,two"))
        if not values or (_is_plain_list(word) and "" in values):
            problems.append(Problem(where=field, what=f'"{word}" holds an empty value', fix="leave it out"))
        if _is_of_machines(field) and len(values) > 1:
            problems.append(Problem(where=field, what="is the same for all jobs of a sweep", fix="give it one value"))
        lists[field] = values
    if problems:
        next_step = "fix the problems above and run the sweep again"
        raise SpecError("The settings cannot be read.", problems=problems, next_step=next_step)
    return lists


def _is_of_machines(field: str) -> bool:
    """Return whether a field is one of `compute.` or `budget.`, which make no other job of the same recipe."""
    return "." in field


def _is_plain_list(word: str) -> bool:
    return "," in word and not word.startswith("[")


def _parse_values(recipe: type[Recipe], field: str, word: str) -> tuple[str, ...]:
    """Return the values that a word of the command line holds: of a JSON list, or between commas."""
    listed = _parse_json_list(word)
    if is_list(recipe, field):  # its one value is a JSON list, several are a list of lists
        return _words(listed) if listed and _holds_lists(listed) else (word,)
    if listed is not None:
        return _words(listed)
    if "," not in word:
        return (word,)
    return tuple(part.strip() for part in word.split(","))


def _parse_json_list(word: str) -> list[Any] | None:
    try:
        value = json.loads(word)
    except ValueError:  # a prompt may begin with a bracket
        return None
    return value if isinstance(value, list) else None


def _holds_lists(listed: Sequence[Any]) -> bool:
    """Return whether every value is a list or null."""
    return all(value is None or isinstance(value, list) for value in listed)


def _words(listed: Sequence[Any]) -> tuple[str, ...]:
    """Return the values of a JSON list as words of the command line."""
    return tuple(_text(value) for value in listed)


def _build_all(fields: Mapping[str, Any], lists: Lists) -> list[JobSpec]:
    """Build the job of every combination; raises SpecError with the problems of all."""
    products = itertools.product(*lists.values())
    combinations = [dict(zip(lists, values, strict=True)) for values in products]
    specs: list[JobSpec] = []
    errors: dict[int, OrchestratorError] = {}
    for number, words in enumerate(combinations):
        try:
            specs.append(build_spec(fields, words))
        except SpecError as error:
            errors[number] = error
    if errors:
        raise refusal(_without_single_values(combinations, lists), errors)
    return specs


def _without_single_values(combinations: Sequence[Words], lists: Lists) -> list[Words]:
    """Return the combinations without the fields that have one value."""
    shortened: list[Words] = []
    for words in combinations:
        kept = {field: word for field, word in words.items() if len(lists[field]) > 1}
        shortened.append(kept)
    return shortened


def _distinct(specs: Sequence[JobSpec]) -> list[JobSpec]:
    """Leave out what is asked for twice, as 1e-4 and 0.0001."""
    distinct = {}
    for spec in specs:
        distinct[spec.model_dump_json()] = spec
    return list(distinct.values())


def _named(specs: Sequence[JobSpec], settings: Sequence[Mapping[str, Any]]) -> Sequence[JobSpec]:
    """Give each adapter a name of its own that says its settings, or their hash where they make no name."""
    base = specs[0].name
    if base is None:
        return specs
    names = ["-".join([base, *_name_parts(values)]) for values in settings]
    are_different = len(set(names)) == len(names)
    if not are_different or not all(is_name(name) for name in names):
        names = [f"{base}-{_hash(values)}" for values in settings]
    if not is_name(names[0]):
        what = f'"{base}" is too long for a sweep, which adds {_HASH_DIGITS + 1} characters to each'
        raise SpecError(
            "The adapters cannot be named; nothing was started.",
            problems=[Problem(where="name", what=what)],
            next_step="choose another name: --name NAME",
        )
    named = []
    for spec, name in zip(specs, names, strict=True):
        named.append(spec.model_copy(update={"name": name}))
    return named


def _name_parts(values: Mapping[str, Any]) -> list[str]:
    """Return `rank4`, `lr1e-4`, `tuner-full`: sorted, so that they can be typed in any order."""
    parts = []
    for field, value in sorted(values.items()):
        short = _abbreviation(field)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number:
            parts.append(f"{short}{_number(value)}")
        else:
            parts.append(f"{short}-{_text(value)}")
    return parts


def _abbreviation(field: str) -> str:
    """Return the initials of a field of several words."""
    words = field.split("_")
    if len(words) == 1:
        return field
    return "".join(word[0] for word in words)


def _number(value: float) -> str:
    """Return a number without the point that a name cannot hold: 1e-4, 15e-5, 300."""
    if value == int(value) and len(str(int(value))) <= _LONGEST_NUMBER:
        return str(int(value))
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    mantissa = "".join(map(str, digits))
    return f"{mantissa}e{exponent}"


def _hash(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


def _text(value: Any) -> str:  # of any field
    """Return a value as it is typed: a string as it stands, everything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
