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
    lists = _lists(recipe, list(pairs))
    count = math.prod(len(values) for values in lists.values())
    if count == 1:
        raise _no_sweep()
    if count > MOST_JOBS:
        raise SpecError(f"This sweep has {count} jobs; {MOST_JOBS} are the most.", next_step="vary fewer settings")
    specs = _distinct(_build_all(fields, lists))
    if len(specs) == 1:
        raise _no_sweep()
    fields_of_recipe = [field for field in lists if not _is_of_machines(field)]
    typed = [{field: getattr(spec.recipe, field) for field in fields_of_recipe} for spec in specs]
    varied = [field for field in fields_of_recipe if len({_text(values[field]) for values in typed}) > 1]
    settings = [{field: _text(values[field]) for field in varied} for values in typed]
    stem = specs[0].name or recipe.recipe_name()
    return [Variant(stem, *pair) for pair in zip(settings, _named(specs, typed), strict=True)]


def _no_sweep() -> SpecError:
    return SpecError(
        "This is one job and no sweep: no setting has two values.",
        next_step="write -s rank=4,8 for two jobs, or for this one: python -m orchestrator submit --help",
    )


def _lists(recipe: type[Recipe], pairs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the values of each field as words of the command line; one that stands alone is a list of one."""
    problems: list[Problem] = []
    lists: dict[str, tuple[str, ...]] = {}
    parse_words(pairs)
    for field, word in (next(iter(parse_words([pair]).items())) for pair in pairs):
        if field in lists:
            problems.append(Problem(where=field, what="stands twice", fix=f"write -s {field}=one,two"))
        lists[field] = _values(recipe, field, word)
        if not lists[field] or ("" in lists[field] and "," in word and not word.startswith("[")):
            problems.append(Problem(where=field, what=f'"{word}" holds an empty value', fix="leave it out"))
        if _is_of_machines(field) and len(lists[field]) > 1:
            problems.append(Problem(where=field, what="is the same for all jobs of a sweep", fix="give it one value"))
    if problems:
        raise SpecError("The settings cannot be read.", problems=problems, next_step="mend them and sweep again")
    return lists


def _is_of_machines(field: str) -> bool:
    """Return whether a field is one of `compute.` or `budget.`, which make no other job of the same recipe."""
    return "." in field


def _values(recipe: type[Recipe], field: str, word: str) -> tuple[str, ...]:
    listed = _json_list(word)
    if is_list(recipe, field):  # its one value is a JSON list, several are a list of lists
        several = bool(listed) and all(isinstance(one, list) or one is None for one in listed or ())
        return tuple(_word(one) for one in listed or ()) if several else (word,)
    if listed is not None:
        return tuple(_word(one) for one in listed)
    return tuple(part.strip() for part in word.split(",")) if "," in word else (word,)


def _json_list(word: str) -> list[Any] | None:
    try:
        value = json.loads(word)
    except ValueError:  # a prompt may begin with a bracket
        return None
    return value if isinstance(value, list) else None


def _word(value: Any) -> str:  # of JSON
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _build_all(fields: Mapping[str, Any], lists: Mapping[str, Sequence[str]]) -> list[JobSpec]:
    combinations = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    specs: list[JobSpec] = []
    errors: dict[int, OrchestratorError] = {}
    for number, words in enumerate(combinations):
        try:
            specs.append(build_spec(fields, words))
        except SpecError as error:
            errors[number] = error
    if errors:
        varied = [field for field, values in lists.items() if len(values) > 1]
        raise refusal([{field: words[field] for field in varied} for words in combinations], errors)
    return specs


def _distinct(specs: Sequence[JobSpec]) -> list[JobSpec]:
    """Leave out what is asked for twice, as 1e-4 and 0.0001."""
    return list({spec.model_dump_json(): spec for spec in specs}.values())


def _named(specs: Sequence[JobSpec], typed: Sequence[Mapping[str, Any]]) -> Sequence[JobSpec]:
    """Give each adapter a name of its own that says its settings, or where that is no name, their hash."""
    base = specs[0].name
    if base is None:
        return specs
    names = ["-".join([base, *_name_parts(values)]) for values in typed]
    if len(set(names)) < len(names) or not all(is_name(name) for name in names):
        names = [f"{base}-{_hash(values)}" for values in typed]
    if not is_name(names[0]):
        what = f'"{base}" is too long for a sweep, which adds {_HASH_DIGITS + 1} characters to each'
        raise SpecError(
            "The adapters cannot be named; nothing was started.",
            problems=[Problem(where="name", what=what)],
            next_step="choose another name: --name NAME",
        )
    return [spec.model_copy(update={"name": name}) for spec, name in zip(specs, names, strict=True)]


def _name_parts(values: Mapping[str, Any]) -> list[str]:
    """Return `rank4`, `lr1e-4`, `tuner-full`: sorted, so that they can be typed in any order."""
    parts = []
    for field, value in sorted(values.items()):
        short = "".join(word[0] for word in field.split("_")) if "_" in field else field
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        parts.append(f"{short}{_number(value)}" if number else f"{short}-{_text(value)}")
    return parts


def _number(value: float) -> str:
    """Return a number without the point that a name cannot hold: 1e-4, 15e-5, 300."""
    if value == int(value) and len(str(int(value))) <= _LONGEST_NUMBER:
        return str(int(value))
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    return f"{''.join(map(str, digits))}e{exponent}"


def _hash(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:_HASH_DIGITS]


def _text(value: Any) -> str:  # of any field
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
