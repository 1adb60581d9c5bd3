"""The commands that messages tell a person to type, written in one place."""

import shlex

PROGRAM = "python -m orchestrator"
"""How this program is started."""


def command(*words: str) -> str:
    """Return the command line that runs this program with these words, each quoted for a shell where it has to be.

    A placeholder such as `{job}` or `FIELD=VALUE` that must not be quoted is written with PROGRAM instead.
    """
    return f"{PROGRAM} {shlex.join(words)}"
