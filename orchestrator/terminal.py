"""Text from strangers (file names, captions, prompts, logs) made safe to print."""

import unicodedata


def printable(text: str, *, keep: str = "") -> str:
    r"""Return `text` with control, direction and undecodable characters as escapes (`\x1b`), but those of `keep`.

    Printed as they are, they could steer the terminal.
    """
    if text.isprintable():
        return text
    return "".join(char if char in keep or _is_harmless(char) else _escape(char) for char in text)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"  # macOS puts U+202F in screenshot names


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
