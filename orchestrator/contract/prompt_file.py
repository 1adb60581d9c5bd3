"""A file of prompts: text with one a line, or JSON lines with one under "prompt"."""

import json
from typing import NamedTuple

from orchestrator.contract.problem import Problem

PROMPTS_FILE = "prompts.txt"
"""As training gets it."""
MOST_PROMPTS = 10_000
MOST_LETTERS = 2000
"""Of a prompt; text encoders read about 300."""
MOST_BYTES = 8 * 2**20
_KEY = "prompt"


class ReadPrompts(NamedTuple):
    """What a file holds."""

    prompts: list[str]
    """In their order, each once."""
    problems: list[Problem]
    """Lines that cannot be used."""
    warnings: list[Problem]
    """Lines that are left out."""


def parse_prompts(data: bytes) -> ReadPrompts:
    """Read the prompts of a file; one that is no text in UTF-8 has a problem and no prompts.

    Lines that begin with # are left out; so are empty ones and prompts that came before, which is warned of.
    """
    prompts: dict[str, int] = {}
    problems = []
    warnings = []
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        what = "is no text in UTF-8"
        return ReadPrompts([], [Problem(where="the file", what=what, fix="save it as UTF-8")], [])
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"line {number}"
        written = line.strip()
        if written.startswith("#"):
            continue
        try:
            prompt = _prompt_of(written)
        except ValueError as error:
            problems.append(Problem(where=where, what=str(error), fix='write {"prompt": "..."}, or the prompt alone'))
            continue
        if not prompt:
            warnings.append(Problem(where=where, what="is empty, and left out", fix="delete it"))
        elif len(prompt) > MOST_LETTERS:
            what = f"has {len(prompt)} characters; a prompt has at most {MOST_LETTERS}"
            problems.append(Problem(where=where, what=what, fix="shorten it"))
        elif prompt in prompts:
            what = f"is the prompt of line {prompts[prompt]} once more, and left out"
            warnings.append(Problem(where=where, what=what, fix="delete it"))
        else:
            prompts[prompt] = number
    if len(prompts) > MOST_PROMPTS:
        what = f"holds {len(prompts)} prompts; at most {MOST_PROMPTS} are read"
        problems.append(Problem(where="the file", what=what, fix="leave some out"))
    return ReadPrompts(list(prompts), problems, warnings)


def _prompt_of(line: str) -> str:
    """Return the prompt that a line holds; raises ValueError for JSON without one."""
    if not line.startswith("{"):
        return line
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("begins like JSON and is none") from error
    prompt = value.get(_KEY)
    if not isinstance(prompt, str):
        raise ValueError(f'has no text under "{_KEY}"')  # noqa: TRY004 - of a person's file, not of a type
    return " ".join(prompt.split())


def written(prompts: list[str]) -> str:
    """Return the text of a file of prompts; `parse_prompts` reads the same ones from it."""
    lines = [json.dumps({_KEY: prompt}, ensure_ascii=False) for prompt in prompts]
    return "\n".join(lines) + "\n"
