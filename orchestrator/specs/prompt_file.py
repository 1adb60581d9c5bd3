"""The file of prompts that a job learns from, read on the machine that submits."""

from pathlib import Path

from orchestrator.contract.prompt_file import MOST_BYTES, ReadPrompts, parse_prompts
from orchestrator.errors import DatasetError
from orchestrator.specs.plain_text import text_problems
from orchestrator.terminal import printable, size_text

FORMAT = 'write one prompt a line, or {"prompt": "..."}, as text in UTF-8, then submit again'


def read_prompt_file(file: Path, held_out: int) -> ReadPrompts:
    """Read the prompts of a job, the last `held_out` of which are not trained on.

    Raises DatasetError with every problem found.
    """
    shown = printable(str(file))
    try:
        size = file.stat().st_size
        if size > MOST_BYTES:
            raise DatasetError(f"{shown} has {size_text(size)}; a file of prompts has at most {size_text(MOST_BYTES)}.")
        found = parse_prompts(file.read_bytes())
    except OSError as error:
        raise DatasetError(f"{shown} cannot be read: {error.strerror}.", next_step=FORMAT) from error
    problems = list(found.problems)
    for number, prompt in enumerate(found.prompts):
        problems += text_problems({f"prompt {number + 1}": prompt})
    if problems:
        raise DatasetError(
            f"The prompts in {shown} cannot be used; nothing was started.",
            problems=problems,
            next_step=FORMAT,
        )
    if len(found.prompts) <= held_out:
        raise DatasetError(
            f"{shown} holds {len(found.prompts)} prompts, and {held_out} of them are held out: none is left to train "
            "on; nothing was started.",
            next_step="add prompts, or hold fewer out: -s held_out_prompts=0",
        )
    return found
