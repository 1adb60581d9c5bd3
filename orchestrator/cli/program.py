"""How this program was called, so that a person can paste the commands that messages name.

Messages name commands in one form (`contract/command_line.py`): those that a job wrote down come from another process,
or another machine. They are rewritten where they are shown to a person; JSON and generated pages keep the one form.
"""

import re
import shlex
import shutil
import sys
from pathlib import Path

from orchestrator.contract.command_line import PROGRAM

SCRIPT = "orchestrator"
"""Name of the console script."""
# Neither part of a path (`.venv/bin/python -m orchestrator`) nor of a module's name (`-m orchestrator.targets`).
_PROGRAM = re.compile(rf"(?<![\w./'-]){re.escape(PROGRAM)}(?![\w.])")


def program() -> str:
    """Return how to call this program in the shell that it was called from: as it was called."""
    called = Path(sys.argv[0])
    if called.name == SCRIPT:
        found = shutil.which(SCRIPT)
        if found is not None and called.samefile(found):
            return SCRIPT
        return shlex.quote(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == SCRIPT:
        # The interpreter as it was typed: a path where the one on PATH would not do.
        return f"{shlex.quote(sys.orig_argv[0])} -m {SCRIPT}"
    return PROGRAM


def as_called(text: str) -> str:
    """Return the text with its commands in the form in which this program was called."""
    form = program()
    if form == PROGRAM:
        return text
    return _PROGRAM.sub(lambda _: form, text)
