"""Values that look like secrets: they are refused before they leave this machine.

Hyperparameters, environment and tags of a job can be read by everyone who may describe it, and stay readable.
"""

import re
from collections.abc import Iterator
from typing import Any

from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError

_LOOKS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{20,}\b",
    "an AWS access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})\b",
    "an API key": r"\bsk-[A-Za-z0-9_-]{20,}\b",
    "a signed web token": r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s@]+@",
    "an AWS secret key": r"(?<![A-Za-z0-9/+=])(?=[A-Za-z0-9/+]*[A-Z])(?=[A-Za-z0-9/+]*[a-z])(?=[A-Za-z0-9/+]*\d)"
    r"[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _LOOKS.items()}


def looks_like(text: str) -> str | None:
    """Return what kind of secret a text seems to hold, or None."""
    return next((name for name, pattern in _PATTERNS.items() if pattern.search(text)), None)


def insist_on_no_secret(values: Any) -> None:
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
            next_step="take it out, and renew it if others may have seen it",
        )


def _texts(values: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(values, str):
        yield where, values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _texts(value, f"{where}.{key}".strip("."))
            yield f"{where}.{key}".strip("."), str(key)
    elif isinstance(values, (list, tuple)):
        for number, value in enumerate(values):
            yield from _texts(value, f"{where}[{number}]")
