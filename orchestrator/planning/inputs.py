"""What a job learns from, checked and written as training gets it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import datasets
from orchestrator.contract.datasets import IMAGES
from orchestrator.contract.digest import tree_sha256
from orchestrator.contract.problem import Problem
from orchestrator.contract.words import holds_word
from orchestrator.datasets import Dataset
from orchestrator.errors import DatasetError, OrchestratorError
from orchestrator.specs.job import JobSpec
from orchestrator.storage.tree import Tree, tree_of_folder


@dataclass(frozen=True)
class PreparedInputs:
    """The inputs of a job, or of all jobs of a sweep that learn from the same files at the same resolution."""

    trees: Mapping[str, Tree] = field(default_factory=dict)
    """Channel to its files; none for a recipe that learns from no files."""
    dataset: Dataset | None = None
    """What was found out about the pictures, where there are any."""
    error: OrchestratorError | None = None
    """What is wrong with them; a plan raises it together with whatever else is wrong with the job."""

    @property
    def sha256(self) -> str:
        """Hash of all files, as the container has it for its training channel."""
        trees = list(self.trees.values())
        return trees[0].sha256 if trees else tree_sha256({})


def prepare_inputs(spec: JobSpec, staging: Path) -> PreparedInputs:
    """Check the job's pictures and write what training gets of them to `staging`, a new folder.

    Each picture is read and decoded once. The folder has to be there until the plan's trees are stored.
    """
    images = spec.inputs.get(IMAGES)
    if images is None:
        return PreparedInputs()
    try:
        dataset = datasets.prepare(images, staging, resolution=spec.recipe.resolution)
    except OrchestratorError as error:
        return PreparedInputs(error=error)
    channel = spec.recipe.dataset.inputs[IMAGES]
    return PreparedInputs(
        trees={channel: tree_of_folder("data", staging)},
        dataset=dataset,
    )


def check_inputs(prepared: PreparedInputs, word: str | None) -> None:
    """Raise what is wrong with prepared inputs, for a job that teaches `word` too.

    A caption takes the place of the recipe's own prompt: without the word that is to be learnt, it would teach
    nothing, so that is a DatasetError.
    """
    if prepared.error is not None:
        raise prepared.error
    if prepared.dataset is None or word is None:
        return
    problems = []
    for picture in prepared.dataset.pictures:
        if picture.caption is not None and not holds_word(picture.caption, word):
            what = f'its caption does not hold "{word}"'
            problems.append(
                Problem(
                    where=str(picture.file),
                    what=what,
                    fix="add the word to the caption",
                )
            )
    if problems:
        next_step = "mend the captions or take them out of the folder, then submit again"
        raise DatasetError(
            "The captions would not teach the new word.",
            next_step=next_step,
            problems=problems,
        )
