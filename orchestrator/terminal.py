"""Make untrusted text (file names, captions, prompts, logs) safe to print."""

import unicodedata


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
