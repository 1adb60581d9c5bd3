"""A file of prompts to draw as a batch: one JSON object a line, or one prompt a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.contract.batch import MOST_IMAGES
from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError
from orchestrator.specs.plain_text import text_problems
from orchestrator.terminal import printable, size_text

MOST_BYTES = 32 * 2**20
"""More than the largest batch has, unless each of its prompts is longer than any text encoder reads."""
FIELDS = (
    "prompt",
    "id",
    "seed",
    "seeds",
    "n",
    "negative_prompt",
    "adapters",
    "embeddings",
    "steps",
    "guidance",
    "size",
    "width",
    "height",
    "scheduler",
)
"""What a line may say, by the names of `contract/generation.py`."""
_JSON = {".jsonl", ".ndjson", ".json"}
_MOST_PROBLEMS = 20
"""That one message names."""
_FORMAT = 'write a JSON object a line, {"prompt": "a photo of sks dog", "seed": 1}, or in a .txt file one prompt a line'


class Line(NamedTuple):
    """A line that asks for images."""

    number: int
    """From 1."""
    values: dict[str, Any]
    """What it says, by the names in FIELDS; of which types, is not known yet."""

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"line {self.number}"


def read_batch(file: Path) -> list[Line]:
    """Read a file of prompts; empty lines and those that begin with # are left out.

    Raises SpecError with every line that cannot be read.
    """
    lines = _lines(file)
    is_json = file.suffix.lower() in _JSON or (file.suffix.lower() != ".txt" and lines[0][1].startswith("{"))
    found = []
    problems: list[Problem] = []
    for number, text in lines:
        try:
            values = _parsed(text) if is_json else {"prompt": text}
        except ValueError as error:
            problems.append(Problem(where=f"line {number}", what=str(error)))
            continue
        line = Line(number, {name: value for name, value in values.items() if value is not None})
        found.append(line)
        problems += text_problems({line.where: values})
    if problems:
        raise refused(file, problems)
    return found


def refused(file: Path, problems: Sequence[Problem]) -> SpecError:
    """Return the error for lines that cannot be drawn, with the first problems and how many there are."""
    shown = list(problems[:_MOST_PROBLEMS])
    more = len(problems) - len(shown)
    if more > 0:
        shown.append(Problem(where="further lines", what=f"{more} more problems"))
    return _refused(f"The images that {printable(str(file))} asks for cannot be drawn", shown)


def _parsed(text: str) -> dict[str, Any]:
    """Return the fields of a line; raises ValueError with the reason for what is no JSON object."""
    try:
        values = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error.msg} at character {error.colno}") from error
    except RecursionError as error:
        raise ValueError("is no JSON of this kind: it is nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError('is no JSON object, {"prompt": ...}')  # noqa: TRY004 - what the caller makes a message of
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; raises ValueError where one of its names stands twice, of which JSON would keep the last."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f'says "{printable(name)}" twice')
        values[name] = value
    return values


def _lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a file that say something, with their numbers; raises SpecError when there is none."""
    shown = printable(str(file))
    try:
        size = file.stat().st_size
        if size > MOST_BYTES:
            message = f"{shown} has {size_text(size)}; a batch has at most {size_text(MOST_BYTES)}"
            raise _refused(message, next_step="split it into several batches")
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(f"{shown} is no text in UTF-8") from error
    except IsADirectoryError as error:
        raise _refused(f"{shown} is a folder, and no file of prompts") from error
    except OSError as error:
        raise _refused(f"{shown} cannot be read: {error.strerror}") from error
    if "\0" in text:
        raise _refused(f"{shown} is no text: it holds NUL characters")
    found = []
    for number, line in enumerate(text.split("\n"), start=1):  # other line ends may stand within a JSON text
        content = line.strip()
        if content and not content.startswith("#"):
            found.append((number, content))
    if not found:
        raise _refused(f"{shown} holds no prompt")
    if len(found) > MOST_IMAGES:
        message = f"{shown} has {len(found)} lines; a batch draws at most {MOST_IMAGES} images"
        raise _refused(message, next_step="split it into several batches")
    return found


def _refused(message: str, problems: Sequence[Problem] = (), next_step: str = _FORMAT) -> SpecError:
    return SpecError(f"{message}; nothing was started.", problems=problems, next_step=next_step)
