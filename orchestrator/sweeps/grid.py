"""The jobs of a sweep: the product of all lists of values, each checked, and every problem of all of them at once."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from orchestrator.contract.problem import Problem
from orchestrator.contract.recipe import Recipe
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.specs.building import build_spec, declaration, is_list
from orchestrator.specs.job import JobSpec, is_name
from orchestrator.specs.job_file import parse_overrides
from orchestrator.sweeps.refusal import FIX_AND_REPEAT, Words, refusal

MOST_JOBS = 100
"""Of one sweep."""
Lists = Mapping[str, Sequence[str]]
"""The values of each field, as words of the command line."""

_HASH_DIGITS = 8
"""Of the hash in a name."""
_LONGEST_NUMBER = 6
"""Digits before an exponent is shorter."""

Values = Mapping[str, Any]
"""The value of each field, of the type that the recipe gives it."""


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
    names = _names(specs[0].name, settings)
    stem = specs[0].name or recipe.recipe_name()
    variants = []
    for spec, values, name in zip(specs, settings, names, strict=True):
        variant = Variant(
            stem=stem,
            settings={field: _text(values[field]) for field in varied},
            spec=spec.model_copy(update={"name": name}),
        )
        variants.append(variant)
    return variants


def _check_count(lists: Lists) -> None:
    """Raise SpecError unless there is more than one job, and no more than allowed."""
    count = 1
    for values in lists.values():
        count *= len(values)
    if count == 1:
        raise _one_job_only()
    if count > MOST_JOBS:
        raise SpecError(
            f"This sweep has {count} jobs; at most {MOST_JOBS} are allowed.",
            next_step="vary fewer settings",
        )


def _one_job_only() -> SpecError:
    """Return the error for a sweep that would be a single job."""
    return SpecError(
        "This is one job, not a sweep: no setting has two values.",
        next_step="write -s rank=4,8 for two jobs, or for this one: python -m orchestrator submit --help",
    )


def _settings(
    specs: Sequence[JobSpec],
    lists: Lists,
) -> list[Values]:
    """Return the value that each job has in each listed field of the recipe."""
    settings: list[Values] = []
    for spec in specs:
        values = {}
        for field in lists:
            if not _is_of_machines(field):
                values[field] = getattr(spec.recipe, field)
        settings.append(values)
    return settings


def _varied_fields(settings: Sequence[Values]) -> list[str]:
    """Return the fields that do not have the same value in all jobs."""
    varied = []
    for field in settings[0]:
        values = {_text(job[field]) for job in settings}
        if len(values) > 1:
            varied.append(field)
    return varied


def _parse_lists(
    recipe: type[Recipe],
    pairs: Sequence[str],
) -> dict[str, tuple[str, ...]]:
    """Return the values of each field; one that stands alone is a list of one. Raises SpecError with every problem."""
    parse_overrides(pairs)  # raises SpecError when one is no pair
    problems: list[Problem] = []
    lists: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        words = parse_overrides([pair])
        field, word = next(iter(words.items()))
        values = _parse_values(recipe, field, word)
        if field in lists:
            twice = Problem(
                where=field,
                what="stands twice",
                fix=f"write -s {field}=one,two",
            )
            problems.append(twice)
        problems += _problems_of_list(field, word, values)
        lists[field] = values
    if problems:
        raise SpecError(
            "The settings cannot be read.",
            problems=problems,
            next_step=FIX_AND_REPEAT,
        )
    return lists


def _problems_of_list(
    field: str,
    word: str,
    values: Sequence[str],
) -> list[Problem]:
    """Return what is wrong with the values of a field, as far as it is known without the recipe."""
    problems = []
    is_json = word.startswith("[")
    has_gap = "," in word and not is_json and "" in values
    if not values or has_gap:
        empty = Problem(
            where=field,
            what=f'"{word}" holds an empty value',
            fix="leave it out",
        )
        problems.append(empty)
    if _is_of_machines(field) and len(values) > 1:
        several = Problem(
            where=field,
            what="is the same for all jobs of a sweep",
            fix="give it one value",
        )
        problems.append(several)
    return problems


def _is_of_machines(field: str) -> bool:
    """Return whether a field is one of `compute.` or `budget.`, which make no other job of the same recipe."""
    return "." in field


def _parse_values(
    recipe: type[Recipe],
    field: str,
    word: str,
) -> tuple[str, ...]:
    """Return the values that a word of the command line holds: of a JSON list, or between commas.

    The one value of a field that is a list is a JSON list itself; several values of it are a list of lists.
    """
    listed = _parse_json_list(word)
    if is_list(recipe, field):
        if listed and _holds_lists(listed):
            return _words(listed)
        return (word,)
    if listed is not None:
        return _words(listed)
    if "," not in word:
        return (word,)
    return tuple(part.strip() for part in word.split(","))


def _parse_json_list(word: str) -> list[Any] | None:
    """Return the JSON list that a word is, or None when it is none: a prompt may begin with a bracket."""
    try:
        value = json.loads(word)
    except ValueError:
        return None
    if not isinstance(value, list):
        return None
    return value


def _holds_lists(listed: Sequence[Any]) -> bool:
    """Return whether every value is a list or null."""
    for value in listed:
        is_list_or_null = value is None or isinstance(value, list)
        if not is_list_or_null:
            return False
    return True


def _words(listed: Sequence[Any]) -> tuple[str, ...]:
    """Return the values of a JSON list as words of the command line."""
    return tuple(map(_text, listed))


def _build_all(
    fields: Mapping[str, Any],
    lists: Lists,
) -> list[JobSpec]:
    """Build the job of every combination; raises SpecError with the problems of all."""
    specs: list[JobSpec] = []
    errors: dict[int, OrchestratorError] = {}
    combinations: list[Words] = []
    for number, values in enumerate(itertools.product(*lists.values())):
        words = dict(zip(lists, values, strict=True))
        combinations.append(_without_single_values(words, lists))
        try:
            specs.append(build_spec(fields, words))
        except SpecError as error:
            errors[number] = error
    if errors:
        raise refusal(combinations, errors)
    return specs


def _without_single_values(words: Words, lists: Lists) -> Words:
    """Return a combination without the fields that have one value only."""
    kept = dict(words)
    for field, values in lists.items():
        if len(values) == 1:
            del kept[field]
    return kept


def _distinct(specs: Sequence[JobSpec]) -> list[JobSpec]:
    """Leave out what is asked for twice, as 1e-4 and 0.0001."""
    distinct = {}
    for spec in specs:
        text = spec.model_dump_json()
        distinct[text] = spec
    return list(distinct.values())


def _names(
    base: str | None,
    settings: Sequence[Values],
) -> Sequence[str | None]:
    """Return a name for each adapter that says its settings, or their hash where they make no name.

    Without a common name none has one. Raises SpecError when the common name leaves no room.
    """
    if base is None:
        return [None] * len(settings)
    names = [_speaking_name(base, values) for values in settings]
    are_different = len(set(names)) == len(names)
    if are_different and all(map(is_name, names)):
        return names
    names = [f"{base}-{_hash(values)}" for values in settings]
    if not is_name(names[0]):
        what = f'"{base}" is too long for a sweep, which adds {_HASH_DIGITS + 1} characters to each'
        raise SpecError(
            "The adapters cannot be named; nothing was started.",
            problems=[Problem(where="name", what=what)],
            next_step="choose another name: --name NAME",
        )
    return names


def _speaking_name(base: str, values: Values) -> str:
    """Return a name like `dog-lr1e-4-rank4-tuner-full`: sorted, so that settings can be typed in any order."""
    parts = [base]
    for field, value in sorted(values.items()):
        short = _abbreviation(field)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number:
            parts.append(f"{short}{_number(value)}")
        else:
            parts.append(f"{short}-{_text(value)}")
    return "-".join(parts)


def _abbreviation(field: str) -> str:
    """Return the initials of a field of several words, and one word as it is."""
    words = field.split("_")
    if len(words) == 1:
        return field
    initials = [word[0] for word in words]
    return "".join(initials)


def _number(value: float) -> str:
    """Return a number without the point that a name cannot hold: 1e-4, 15e-5, 300."""
    if value == int(value):
        text = str(int(value))
        if len(text) <= _LONGEST_NUMBER:
            return text
    decimal = Decimal(repr(value)).normalize()
    _, digits, exponent = decimal.as_tuple()
    mantissa = "".join(map(str, digits))
    return f"{mantissa}e{exponent}"


def _hash(values: Values) -> str:
    """Return digits that say the settings, whatever the order they were typed in."""
    text = json.dumps(values, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    return digest.hexdigest()[:_HASH_DIGITS]


def _text(value: Any) -> str:  # of any field
    """Return a value as it is typed: a string as it stands, everything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
