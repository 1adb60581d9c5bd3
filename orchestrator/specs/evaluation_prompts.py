"""The prompts of an evaluation: somebody's own, one a line, or those that an adapter's recipe is judged by."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.contract.evaluation import MOST_LETTERS, MOST_PROMPTS, MOST_UNRELATED
from orchestrator.contract.problem import Problem
from orchestrator.contract.prompts import SUBJECT_MARK, EvaluationPrompt, unrelated
from orchestrator.contract.recipe import Recipe
from orchestrator.errors import SpecError
from orchestrator.specs.plain_text import text_problems
from orchestrator.terminal import printable, size_text

_MOST_BYTES = 200_000
"""More than the largest number of the longest prompts."""
_USUAL = 8
"""Prompts of an adapter whose recipe was not judged by any."""
_NO_CONTENT = {"a", "an", "the", "of", "in", "on", "with", "photo", "picture", "drawing"}
"""Words that say nothing of what a prompt is about."""
_FORMAT = f"write one prompt a line, as text in UTF-8, with {SUBJECT_MARK} where the subject stands"


def read_prompts(file: Path, recipe: Recipe) -> list[EvaluationPrompt]:
    """Read a file of prompts, one a line, for an adapter of a recipe.

    Empty lines and those that begin with # are left out. Raises SpecError with every problem found.
    """
    prompts: dict[str, EvaluationPrompt] = {}
    problems = []
    for number, line in _lines(file):
        where = f"line {number}"
        problems += text_problems({where: line})
        letters = len(line)
        if letters > MOST_LETTERS:
            what = f"has {letters} characters; a prompt has at most {MOST_LETTERS}"
            problems.append(Problem(where=where, what=what))
        try:
            prompt = recipe.judged_by_text(line)
        except ValueError as error:
            what = str(error)
            problems.append(Problem(where=where, what=what))
            continue
        prompts.setdefault(prompt.text, prompt)
    count = len(prompts)
    if count > MOST_PROMPTS:
        what = f"{count} prompts; an evaluation draws at most {MOST_PROMPTS}"
        problems.append(Problem(where="the file", what=what))
    if problems:
        shown = printable(str(file))
        raise _refused(f"The prompts in {shown} cannot be used", problems)
    return list(prompts.values())


def usual_prompts(recipe: Recipe) -> list[EvaluationPrompt]:
    """Return the prompts that an adapter of a recipe is judged by; none when those were captions of its pictures."""
    count = recipe.evaluation_prompts or _USUAL
    return recipe.model_copy(update={"evaluation_prompts": count}).judged_by


def unrelated_prompts(asked: Sequence[EvaluationPrompt], *, builtin: bool) -> list[str]:
    """Return prompts about something else than all of these, in words that the base model knows."""
    before = [prompt.text for prompt in asked]
    after = [prompt.after for prompt in asked]
    shared = _shared_words(before) | _shared_words(after)
    others = []
    for text in unrelated(builtin=builtin, without=shared):
        if text not in before:
            others.append(text)
    available = len(others)
    count = min(MOST_UNRELATED, available)
    chosen = []
    for place in range(count):
        index = place * available // count  # evenly spread
        chosen.append(others[index])
    return chosen


def _shared_words(texts: Iterable[str]) -> set[str]:
    """Return the words that stand in all of some texts and say what they are about."""
    words = []
    for text in texts:
        lower = text.lower()
        words.append(set(lower.split()))
    in_all = set.intersection(*words)
    return in_all - _NO_CONTENT


def _lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a file that hold a prompt, with their numbers; raises SpecError when there is none."""
    shown = printable(str(file))
    try:
        size = file.stat().st_size
        if size > _MOST_BYTES:
            raise _refused(f"{shown} has {size_text(size)}; a file of prompts has at most {size_text(_MOST_BYTES)}")
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(f"{shown} is no text in UTF-8") from error
    except OSError as error:
        raise _refused(f"{shown} cannot be read: {error.strerror}") from error
    if "\0" in text:
        raise _refused(f"{shown} is no text: it holds NUL characters")
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        prompt = line.strip()
        if prompt and not prompt.startswith("#"):
            found.append((number, prompt))
    if not found:
        raise _refused(f"{shown} holds no prompt")
    return found


def _refused(message: str, problems: Sequence[Problem] = ()) -> SpecError:
    return SpecError(f"{message}; nothing was started.", problems=problems, next_step=_FORMAT)
