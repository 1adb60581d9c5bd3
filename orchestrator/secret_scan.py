"""Refuse values that look like secrets before they leave this machine.

Hyperparameters, environment and tags of a job can be read by everyone who may describe it, and cannot be deleted.
"""

import os
import re
from collections.abc import Iterator
from typing import Any

from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError

# An AWS secret key has 40 random characters, which change between capitals, small letters and digits more often than
# those of a path of that length.
_CHANGES_CASE = r"(?=[a-z0-9/+]*(?:[A-Z]+[a-z0-9/+]+){3}[A-Z])"
_HAS_DIGIT = r"(?=[A-Za-z/+]*\d)"
_PATTERNS = {
    "a Hugging Face token": re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{20,}"),
    "an AWS access key": re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    "an AWS session token": re.compile(r"IQoJb3JpZ2lu[A-Za-z0-9/+=]{50,}"),
    "a GitHub token": re.compile(r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})"),
    "an API key": re.compile(r"(?<![A-Za-z0-9])sk-(?=[\w-]*[A-Z])(?=[\w-]*\d)[A-Za-z0-9_-]{20,}"),
    "a signed web token": re.compile(r"(?<![A-Za-z0-9])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in a URL": re.compile(r"://[^/\s:@]*:[^/\s@]+@"),
    "an AWS secret key": re.compile(
        rf"(?<![A-Za-z0-9/+]){_CHANGES_CASE}{_HAS_DIGIT}[A-Za-z0-9/+]{{40}}(?![A-Za-z0-9/+=])"
    ),
}
_SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|CREDENTIAL", re.IGNORECASE)
_MIN_LENGTH = 12
"""Characters of a variable's value that counts as a secret; a shorter one could be a word of a prompt."""


def looks_like(text: str) -> str | None:
    """Return what kind of secret a text seems to hold, or None.

    Many keys have no recognisable form, so the values of this process's variables with names such as WANDB_API_KEY are
    searched for too.
    """
    for kind, pattern in _PATTERNS.items():
        if pattern.search(text):
            return kind
    for name, value in os.environ.items():
        if len(value) < _MIN_LENGTH or not _SECRET_VARIABLE.search(name):
            continue
        if value in text:
            return f"the value of {name}"
    return None


def require_no_secret(values: Any) -> None:
    """Raise SpecError when any text within nested values looks like a secret; the message does not repeat it."""
    problems = []
    for where, text in texts_within(values):
        kind = looks_like(text)
        if kind is not None:
            what = f"looks like {kind}, which everybody who may see the job could read"
            problems.append(Problem(where=where, what=what))
    if problems:
        raise SpecError(
            "A secret would leave this machine; nothing was started.",
            problems=problems,
            next_step="remove it, submit again, and replace it by a new one if others may have seen it",
        )


def texts_within(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield every key and text within nested values, with the path to it, such as "recipe.prompts[0]"."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            name = str(key)
            shown = "<hidden>" if looks_like(name) else name
            path = f"{where}.{shown}".strip(".")
            yield path, name
            yield from texts_within(inner, path)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from texts_within(inner, f"{where}[{number}]")
