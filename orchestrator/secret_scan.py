"""Values that look like secrets: they are refused before they leave this machine.

Hyperparameters, environment and tags of a job can be read by everyone who may describe it, and stay readable.
"""

import os
import re
from collections.abc import Iterator
from typing import Any

from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError

_LOOKS = {
    "a Hugging Face token": r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{20,}",
    "an AWS access key": r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "an AWS session token": r"IQoJb3JpZ2lu[A-Za-z0-9/+=]{50,}",
    "a GitHub token": r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})",
    "an API key": r"(?<![A-Za-z0-9])sk-(?=[\w-]*[A-Z])(?=[\w-]*\d)[A-Za-z0-9_-]{20,}",
    "a signed web token": r"(?<![A-Za-z0-9])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": r"://[^/\s:@]*:[^/\s@]+@",
    # Forty random characters change often between capitals, small letters and digits; a path of that length does not.
    "an AWS secret key": r"(?<![A-Za-z0-9/+])(?=[a-z0-9/+]*(?:[A-Z]+[a-z0-9/+]+){3}[A-Z])"
    r"(?=[A-Za-z/+]*\d)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
}
_NAMED_SECRET = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 12
"""Characters of a variable's value that is taken for a secret; a shorter one could be a word of a prompt."""
_PATTERNS = {name: re.compile(pattern) for name, pattern in _LOOKS.items()}


def looks_like(text: str) -> str | None:
    """Return what kind of secret a text seems to hold, or None."""
    return next((name for name, pattern in _PATTERNS.items() if pattern.search(text)), None) or _own_secret(text)


def _own_secret(text: str) -> str | None:
    """Find what a variable of this process that is named like a secret holds: many keys have no looks of their own."""
    return next(
        (
            f"the value of {name}"
            for name, value in os.environ.items()
            if _NAMED_SECRET.search(name) and len(value) >= _SHORTEST and value in text
        ),
        None,
    )


def require_no_secret(values: Any) -> None:
    """Raise SpecError when any text within nested values looks like a secret; the text itself is not repeated."""
    problems = [
        Problem(where=where, what=f"looks like {kind}, which everybody who may see the job could read")
        for where, text in _texts(values)
        if (kind := looks_like(text))
    ]
    if problems:
        raise SpecError(
            "A secret would leave this machine; nothing was started.",
            problems=problems,
            next_step="take it out, submit again, and renew it if others may have seen it",
        )


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            named = f"{where}.{'<hidden>' if looks_like(str(key)) else key}".strip(".")
            yield named, str(key)
            yield from _texts(inner, named)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{where}[{number}]")
