"""The prompts of a job: those that are trained on, and those that are held out to see what was learned."""

from typing import NamedTuple

from entrypoints.runtime.failures import TrainingError
from entrypoints.training.run import Run
from orchestrator.contract.environment import PROMPTS_CHANNEL
from orchestrator.contract.prompt_file import PROMPTS_FILE, parse_prompts
from orchestrator.contract.recipes.rlhf import Rlhf


class SplitPrompts(NamedTuple):
    """The prompts of a job."""

    trained: list[str]
    held_out: list[str]


def split_prompts(recipe: Rlhf, run: Run) -> SplitPrompts:
    """Read the prompts of a job, of which the last ones are held out.

    Raises TrainingError("dataset") when there are none: a submit has checked the rest.
    """
    folder = run.environment.channel(PROMPTS_CHANNEL)
    prompts: list[str] = []
    if folder is not None and (folder / PROMPTS_FILE).is_file():
        prompts = parse_prompts((folder / PROMPTS_FILE).read_bytes()).prompts
    trained = prompts[: len(prompts) - recipe.held_out_prompts]
    if not trained:
        raise TrainingError(
            "dataset",
            f"There are {len(prompts)} prompts, and {recipe.held_out_prompts} of them are held out.",
            "Submit again with more prompts, or with -s held_out_prompts=0.",
        )
    return SplitPrompts(trained, prompts[len(trained) :])
