"""A line of a batch, checked: its adapters, its seeds, the names of its images, and how these are drawn."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.contract.batch import MOST_IMAGES
from orchestrator.contract.generation import MAX_SEED, AdapterUse, Generation
from orchestrator.contract.problem import Problem, did_you_mean, problems_of
from orchestrator.specs.batch_file import FIELDS, Line
from orchestrator.terminal import printable

_NAMES = {"prompts": "prompt", "seeds": "seed"}
"""Fields of a generation that a line calls otherwise: it has one prompt."""
_SIDES = ("width", "height")
_SHAPE = ("size", *_SIDES)
_SETTINGS = ("negative_prompt", "steps", "guidance", *_SHAPE, "scheduler")
_STAND_INS: Mapping[str, Any] = {"steps": 1, "guidance": 1, "size": 64}
"""In place of settings that an endpoint chooses, so that everything else is checked."""
_MOST_LETTERS = 100
_ID = f"letters, digits, dots, hyphens and underscores, {_MOST_LETTERS} at most, the first a letter or a digit"
_SHOWN = 50
"""Characters of a value in a message."""


class AskedLine(NamedTuple):
    """A line with the adapters that it names."""

    line: Line
    uses: tuple[AdapterUse, ...]
    """Its own, or else those of the command; learned words too, whose weight is 1."""


class CheckedLine(NamedTuple):
    """A line whose values are of their types and within their limits."""

    generation: Generation
    """How its images are drawn, with the first of its seeds."""
    settings: Mapping[str, Any]
    """Those of its settings that somebody chose; the others are stand-ins in `generation`."""
    seeds: Sequence[int]
    """Seed of each image."""
    names: Sequence[str]
    """Name of each image."""


class Claims:
    """What lines have asked for so far: each image once, under a name of its own."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        """Lines of all images, by their ids, and by their names in small letters."""
        self.total = 0
        """Images of all lines."""

    def problem_of_number(self, line: Line, count: int) -> Problem | None:
        """Count the images of a line; return what is wrong when there are too many by now."""
        self.total += count
        if self.total <= MOST_IMAGES:
            return None
        what = f"more than {MOST_IMAGES} images are asked for up to here"
        return Problem(where=line.where, what=what, fix="split the file into several batches")

    def problem_of(
        self,
        line: Line,
        image: str,
        name: str,
    ) -> Problem | None:
        """Note an image by its id and its name; return what is wrong when it, or its name, is there already."""
        same = self.lines.get(image)
        if same is not None:
            what = f"asks for an image of line {same} again: the same prompt, seed and settings"
            return Problem(where=line.where, what=what, fix="give it another seed, or leave it out")
        file = name.lower()  # some file systems do not tell capital letters from small ones
        other = self.lines.get(file)
        if other is not None:
            what = f'the id "{name}" is that of line {other} too'
            return Problem(where=line.where, what=what, fix="give each line an id of its own")
        self.lines[image] = line.number
        self.lines[file] = line.number
        return None


def asked_lines(
    lines: Sequence[Line],
    adapters: Sequence[str],
    embeddings: Sequence[str],
) -> tuple[list[AskedLine], list[Problem]]:
    """Return lines with the adapters that they name, and what is wrong with these.

    `adapters` and `embeddings` are those of lines that name none.
    """
    asked = []
    problems = []
    for line in lines:
        uses: tuple[AdapterUse, ...] = ()
        named = line.values.get("adapters", list(adapters))
        words = line.values.get("embeddings", list(embeddings))
        try:
            uses = adapters_in(named)
            uses += _embeddings_in(words)
        except ValueError as error:
            problem = Problem(where=f"{line.where}, adapters", what=str(error))
            problems.append(problem)
        asked.append(AskedLine(line, uses))
    return asked, problems


def adapters_in(value: Any) -> tuple[AdapterUse, ...]:
    """Return the adapters of a list with their weights: each "dog", "dog:0.8" or {"name": "dog", "weight": 0.8}.

    Raises ValueError with the reason for what is none.
    """
    if not isinstance(value, list):
        raise ValueError('should be a list, such as ["dog:0.8"]')  # noqa: TRY004 - what the caller makes a message of
    uses = []
    for item in value:
        fields = item
        if isinstance(item, str):
            fields = named_adapter(item)
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


def _embeddings_in(value: Any) -> tuple[AdapterUse, ...]:
    """Return the learned words of a list as adapters; raises ValueError for what is no list of names."""
    reason = 'embeddings should be a list of names, such as ["my-word"]'
    if not isinstance(value, list):
        raise ValueError(reason)  # noqa: TRY004 - what the caller makes a message of
    uses = []
    for name in value:
        if not isinstance(name, str) or not name:
            raise ValueError(reason)
        uses.append(AdapterUse(name=name))
    return tuple(uses)


def named_adapter(text: str) -> dict[str, Any]:
    """Return the name and the weight of "dog:0.8", or the name alone of "dog" and of a path, as C:/dog.

    Raises ValueError for a weight that is no number.
    """
    name, colon, tail = text.rpartition(":")
    is_path = "/" in tail or "\\" in tail
    if not colon or is_path:
        return {"name": text}
    try:
        weight = float(tail)
    except ValueError:
        raise ValueError(f"{_shown(tail)} is no weight; write a number after the colon, such as 0.8") from None
    return {"name": name, "weight": weight}


def check_chosen(chosen: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with settings that were chosen for all lines, by the names of fields."""
    line = Line(0, {})
    settings = {"prompt": "a", "seed": 0, **chosen}
    _, problems = check_line(line, (), settings)
    found = []
    for problem in problems:
        where = problem.where.removeprefix(line.where)
        field = where.removeprefix(", ")
        of_all = problem.model_copy(update={"where": field})
        found.append(of_all)
    return found


def with_left_out(line: Line, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a line, and `settings` for those that it leaves out; its shape is one of them."""
    left = dict(settings)
    has_shape = any(name in line.values for name in _SHAPE)
    if has_shape:
        for side in _SIDES:
            left.pop(side, None)
    return {**left, **line.values}


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
    chosen = {}
    for name in _SETTINGS:
        value = settings.get(name)
        if value is not None:
            chosen[name] = value
    values = {
        **_STAND_INS,
        **chosen,
        "prompts": [settings.get("prompt", "")],
        "seeds": [seeds[0]],
        "adapters": uses,
    }
    try:
        generation = Generation.model_validate(values)
    except ValidationError as error:
        problems += _problems_of_line(line, error)
        return None, problems
    if problems:
        return None, problems
    return CheckedLine(generation, chosen, seeds, names), problems


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
    if isinstance(value, bool):
        return False
    return isinstance(value, int)


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
    if not text:
        return False
    if len(text) > _MOST_LETTERS:
        return False
    if not text.isascii():
        return False
    for character in text:
        if character in "._-":
            continue
        if not character.isalnum():
            return False
    return text[0].isalnum()
