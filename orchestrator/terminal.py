"""Text for a terminal: untrusted words (file names, captions, prompts, logs) made safe to print, sizes and counts."""

import re
import unicodedata

from orchestrator.contract.plurals import counted

_UNIT = 1000
"""Bytes in a kilobyte."""


LONGEST_NAME = 255
"""Bytes of a file's name, on all usual systems."""
_LONG_WORD = re.compile(r"([^\s/]{100})[^\s/]{156,}")
"""More letters than a file's name has."""

CONTROL = "Cc"
"""Unicode's category of control characters."""
SURROGATE = "Cs"
"""Unicode's category of lone surrogates: Python reads bytes that are not UTF-8 as these."""


def is_control(character: str) -> bool:
    """Whether a character belongs in no text: a control character or a lone surrogate."""
    return unicodedata.category(character) in {CONTROL, SURROGATE}


def printable(text: str, *, keep: str = "") -> str:
    r"""Return `text` with control, direction and undecodable characters as escapes (`\x1b`), except those of `keep`.

    Printed as they are, they could move the cursor or run commands of the terminal.
    """
    if text.isprintable():
        return text
    shown = []
    for character in text:
        is_space = unicodedata.category(character) == "Zs"  # macOS puts U+202F in screenshot names
        if character.isprintable() or is_space or character in keep:
            shown.append(character)
        else:
            escape = character.encode("unicode_escape")
            shown.append(escape.decode("ascii"))
    return "".join(shown)


def shortened(text: str) -> str:
    """Return a text whose words no longer than a file's name can be are whole, and of each longer one the beginning."""
    return _LONG_WORD.sub(r"\1...", text)


def size_text(count: int) -> str:
    """Return a number of bytes in three digits and a decimal unit: "512 bytes", "416 kB", "1.3 MB"."""
    if count < _UNIT:
        return counted(count, "byte")
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= _UNIT
        if value < _UNIT - 0.5:  # what rounds to 1000 belongs to the next unit
            return f"{value:.3g} {unit}"
    return f"{value / _UNIT:.3g} TB"
