"""A line of a batch, checked: its adapters, its seeds, the names of its images, and how these are drawn."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.contract.batch import MOST_IMAGES
from orchestrator.contract.generation import MAX_SEED, AdapterUse, Generation
from orchestrator.contract.problem import Problem, did_you_mean, problems_of
from orchestrator.specs.batch_file import FIELDS, Line
from orchestrator.terminal import printable

_NAMES = {"prompts": "prompt", "negative_prompt": "negative", "seeds": "seed"}
"""Fields of a generation, and what a line calls them."""
_PLAUSIBLE: Mapping[str, Any] = {"prompt": "a", "steps": 1, "guidance": 1, "size": 64, "seed": 0}
"""A line with which nothing is wrong."""
_MOST_LETTERS = 100
_ID = f"letters, digits, dots, hyphens and underscores, {_MOST_LETTERS} at most, the first a letter or a digit"
_SHOWN = 50
"""Characters of a value in a message."""


class CheckedLine(NamedTuple):
    """A line whose values are of their types and within their limits."""

    generation: Generation
    """How its images are drawn, with the first of its seeds."""
    seeds: Sequence[int]
    """Seed of each image."""
    names: Sequence[str]
    """Name of each image."""


def adapters_in(value: Any) -> tuple[AdapterUse, ...]:
    """Return adapters with their weights: "dog", "dog:0.8", {"name": "dog", "weight": 0.8}, or a list of these.

    Raises ValueError with the reason for what is none.
    """
    items = value
    if not isinstance(value, list):
        items = [value]
    uses = []
    for item in items:
        fields = item
        if isinstance(item, str):
            fields = _named(item)
        try:
            use = AdapterUse.model_validate(fields)
        except ValidationError as error:
            problems = problems_of(
                error,
                AdapterUse.model_fields,
                whole="an adapter",
            )
            raise ValueError(problems[0].render()) from error
        uses.append(use)
    return tuple(uses)


def _named(text: str) -> dict[str, Any]:
    """Return the name and the weight of "dog:0.8"; what ends with no number is a name."""
    name, colon, tail = text.rpartition(":")
    if not colon:
        return {"name": text}
    try:
        weight = float(tail)
    except ValueError:
        return {"name": text}
    return {"name": name, "weight": weight}


def check_chosen(chosen: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with settings that were chosen for all lines, by their options."""
    line = Line(0, {})
    settings = {**_PLAUSIBLE, **chosen}
    _, problems = check_line(line, (), settings)
    found = []
    for problem in problems:
        where = problem.where.removeprefix(line.where)
        option = where.replace(", ", "--")
        at_option = problem.model_copy(update={"where": option})
        found.append(at_option)
    return found


def check_line(
    line: Line,
    uses: Sequence[AdapterUse],
    settings: Mapping[str, Any],
) -> tuple[CheckedLine | None, list[Problem]]:
    """Return a line, or None and what is wrong with it; `settings` are its own values and those that it leaves out."""
    problems = _unknown_fields(line)
    seeds: Sequence[int] = [0]
    names: Sequence[str] = [""]
    try:
        seeds = _seeds(line.values, settings)
        names = _names(line, len(seeds))
    except ValueError as error:
        problem = Problem(where=line.where, what=str(error))
        problems.append(problem)
    try:
        generation = _generation(uses, settings, seeds[0])
    except ValidationError as error:
        problems += _problems_of_line(line, error)
        return None, problems
    if problems:
        return None, problems
    return CheckedLine(generation, seeds, names), problems


def _unknown_fields(line: Line) -> list[Problem]:
    problems = []
    for name in line.values:
        if name in FIELDS:
            continue
        problem = Problem(
            where=line.where,
            what=f'there is no field "{printable(name)}"',
            fix=did_you_mean(name, FIELDS),
        )
        problems.append(problem)
    return problems


def _generation(
    uses: Sequence[AdapterUse],
    settings: Mapping[str, Any],
    seed: int,
) -> Generation:
    """Return how the images of a line are drawn; raises ValidationError."""
    values = {
        "prompts": [settings.get("prompt", "")],
        "negative_prompt": settings.get("negative"),
        "seeds": [seed],
        "steps": settings["steps"],
        "guidance": settings["guidance"],
        "size": settings["size"],
        "scheduler": settings.get("scheduler"),
        "adapters": uses,
    }
    return Generation.model_validate(values)


def _problems_of_line(line: Line, error: ValidationError) -> list[Problem]:
    """Return what is wrong with the generation of a line, in the line's own words."""
    problems = []
    for problem in problems_of(error):
        field, _, _ = problem.where.partition("[")
        name = _NAMES.get(field, problem.where)
        in_line = problem.model_copy(update={"where": f"{line.where}, {name}"})
        problems.append(in_line)
    return problems


def _seeds(own: Mapping[str, Any], settings: Mapping[str, Any]) -> Sequence[int]:
    """Return the seed of each image of a line; raises ValueError with the reason for what is none."""
    if "seeds" not in own:
        return _seeds_from(settings["seed"], settings.get("n", 1))
    if "seed" in own or "n" in own:
        raise ValueError("says seeds, and seed or n beside it; say one of them")
    seeds = own["seeds"]
    if not isinstance(seeds, list) or not seeds:
        raise ValueError("seeds should be a list of whole numbers")
    for seed in seeds:
        _require_seed(seed)
    return seeds


def _seeds_from(first: Any, count: Any) -> Sequence[int]:
    """Return so many seeds, one after another."""
    if not _is_whole(count) or not 1 <= count <= MOST_IMAGES:
        raise ValueError(f"n should be from 1 to {MOST_IMAGES}, not {_shown(count)}")
    _require_seed(first)
    last = first + count - 1
    _require_seed(last)
    return range(first, last + 1)


def _require_seed(value: Any) -> None:
    """Raise ValueError unless a value is a seed."""
    if not _is_whole(value) or not 0 <= value <= MAX_SEED:
        raise ValueError(f"a seed should be a whole number from 0 to {MAX_SEED}, not {_shown(value)}")


def _is_whole(value: Any) -> bool:
    """Whether a value is a whole number: JSON's true is none, and Python's is 1."""
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """Return what somebody wrote, shortened."""
    text = repr(value)
    return printable(text[:_SHOWN])


def _names(line: Line, count: int) -> Sequence[str]:
    """Return the name of each image of a line: its id or else its number, with numbers for several images.

    Raises ValueError with the reason for an id that cannot be one.
    """
    name = line.values.get("id", f"{line.number:05}")
    if not isinstance(name, str) or not _is_id(name):
        raise ValueError(f"id should be {_ID}; not {_shown(name)}")
    if count == 1:
        return [name]
    digits = len(str(count))
    names = []
    for number in range(1, count + 1):
        names.append(f"{name}-{number:0{digits}}")
    return names


def _is_id(text: str) -> bool:
    """Whether a text can name a file on every system."""
    if not text or len(text) > _MOST_LETTERS or not text.isascii():
        return False
    for character in text:
        if not character.isalnum() and character not in "._-":
            return False
    return text[0].isalnum()
