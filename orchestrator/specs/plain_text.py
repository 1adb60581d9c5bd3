"""What a person typed has to be text: it travels as UTF-8, and models and services read nothing else."""

import unicodedata
from collections.abc import Mapping
from typing import Any

from orchestrator.contract.datasets import IMAGES, PROMPTS
from orchestrator.contract.problem import Problem
from orchestrator.secret_scan import texts_within
from orchestrator.terminal import CONTROL, SURROGATE, printable

_WHITE_SPACE = "\t\n\r"
_NUL = "\0"
_BYTES = {chr(code) for code in range(0xDC80, 0xDD00)}
"""How Python reads the bytes of a file's name that are not UTF-8."""


def text_problems(values: Mapping[str, Any]) -> list[Problem]:
    """Return what is no text within nested values: bytes that are not UTF-8, and control characters.

    Python reads a byte of the command line that is not UTF-8 as a lone surrogate; YAML and JSON have escapes for them.
    The folder of images and the file of prompts stay on this machine, so that their names may be of any bytes.
    """
    problems = []
    for where, text in texts_within(values):
        stays_here = where in (IMAGES, PROMPTS)
        for character in text:
            what = _fault(character, stays_here=stays_here)
            if what:
                fix = "write it in UTF-8, without control characters"
                problems.append(Problem(where=printable(where), what=what, fix=fix))
                break
    return problems


def _fault(character: str, *, stays_here: bool) -> str:
    """Return what is wrong with a character; empty for one that is text."""
    category = unicodedata.category(character)
    if stays_here:
        if character == _NUL:
            return "holds a NUL character"
        if category == SURROGATE and character not in _BYTES:
            return f"holds what no name of a file can ({printable(character)})"
        return ""
    if category == SURROGATE:
        return f"holds bytes that are not UTF-8 text ({printable(character)})"
    if category == CONTROL and character not in _WHITE_SPACE:
        return f"holds a control character ({printable(character)})"
    return ""
