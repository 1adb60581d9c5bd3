"""Check the inputs of a job and write them in the form that training reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import datasets
from orchestrator.contract.conditions import GIVEN
from orchestrator.contract.datasets import CONDITIONS_FOLDER, IMAGES, PROMPTS
from orchestrator.contract.digest import FileDigest, tree_sha256
from orchestrator.contract.environment import FINDINGS_CHANNEL
from orchestrator.contract.findings import MOST_FINDINGS, Findings
from orchestrator.contract.mixins import Denoising
from orchestrator.contract.preferences import PREFERENCES_FILE, parse_preferences
from orchestrator.contract.problem import Problem
from orchestrator.contract.prompt_file import PROMPTS_FILE, written
from orchestrator.contract.recipe import Recipe
from orchestrator.datasets import Dataset
from orchestrator.datasets.preparation import EXTENSIONS
from orchestrator.errors import DatasetError, OrchestratorError
from orchestrator.specs.job import JobSpec
from orchestrator.specs.prompt_file import read_prompt_file
from orchestrator.storage.tree import Tree, tree_of_folder
from orchestrator.terminal import printable


@dataclass(frozen=True)
class PreparedInputs:
    """The inputs of a job, or of all jobs of a sweep that share files and resolution."""

    trees: Mapping[str, Tree] = field(default_factory=dict)
    """Channel name to files; empty for a recipe without input files."""
    findings: Tree | None = None
    """What the job's report says of the images: a channel that is no part of the job's identity."""
    dataset: Dataset | None = None
    """What the inspection of the images found; None without images."""
    texts: Mapping[str, Any] = field(default_factory=dict)
    """What a person wrote that is neither a setting nor a caption, and goes to the bucket: prompts."""
    prompts: tuple[str, ...] = ()
    """Those that are trained on or held out, of a job that learns from prompts."""
    left_out: tuple[Problem, ...] = ()
    """Lines of their file that are left out."""
    error: OrchestratorError | None = None
    """Why they cannot be used; a plan raises it together with the other problems of the job."""

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What the inspection found that does not prevent training; also where something else does."""
        if self.error is not None:
            return self.error.warnings
        if self.dataset is not None:
            return self.dataset.warnings
        return self.left_out

    @property
    def sha256(self) -> str:
        """Hash of all files; of one channel it is the hash that the container computes of it."""
        trees = list(self.trees.values())
        if len(trees) == 1:
            return trees[0].sha256
        every: dict[str, FileDigest] = {}
        for channel, tree in self.trees.items():
            for name, digest in tree.files.items():
                every[f"{channel}/{name}"] = digest
        return tree_sha256(every)


def prepare_inputs(spec: JobSpec, staging: Path) -> PreparedInputs:
    """Check the job's images and write what a job reads of them to folders of `staging`, a new folder.

    Each image is read and decoded once. The folder must exist until the trees of the plan are stored.
    """
    if spec.prompts is not None:
        return _prepare_prompts(spec, spec.prompts, staging)
    images = spec.inputs.get(IMAGES)
    if images is None:
        return PreparedInputs()
    recipe = spec.recipe
    if recipe.dataset.has_conditions and not recipe.reads_conditions and datasets.has_conditions(images):
        return PreparedInputs(error=_left_out(images))
    try:
        dataset = datasets.prepare(
            images,
            staging / IMAGES,
            resolution=recipe.resolution,
            with_conditions=recipe.reads_conditions,
            masked=reads_masks(recipe),
            fewest=recipe.learns_from.fewest,
        )
    except OrchestratorError as error:
        return PreparedInputs(error=error)
    if recipe.learns_from.has_preferences:
        try:
            _write_preferences(images, dataset, staging / IMAGES)
        except OrchestratorError as error:
            return PreparedInputs(dataset=dataset, error=error)
    channel = recipe.learns_from.inputs[IMAGES]
    tree = tree_of_folder("data", staging / IMAGES)
    findings = _told(dataset, staging / FINDINGS_CHANNEL)
    return PreparedInputs(trees={channel: tree}, findings=findings, dataset=dataset)


def _write_preferences(folder: Path, dataset: Dataset, prepared: Path) -> None:
    """Write the pairs of a folder by the names of the prepared pictures.

    Raises DatasetError with all problems.

    Args:
        folder: A person's pictures, with PREFERENCES_FILE beside them.
        dataset: What was found of these, in the order in which they were prepared.
        prepared: The numbered copies.
    """
    file = folder / PREFERENCES_FILE
    shown = printable(str(file))
    next_step = "write one object a line into preferences.jsonl, then submit again"
    numbered = []
    for path in sorted(prepared.iterdir()):
        if path.suffix in EXTENSIONS.values():
            numbered.append(path.name)
    names = {}
    for image, name in zip(dataset.images, numbered, strict=True):
        own_name = image.file.name
        names[own_name] = name
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{shown} cannot be read: {error.strerror}.", next_step=next_step) from error
    found = parse_preferences(data, names)
    if found.problems:
        raise DatasetError(f"The pairs in {shown} cannot be used.", problems=found.problems, next_step=next_step)
    lines = []
    for pair in found.pairs:
        chosen = names[pair.chosen]
        rejected = names[pair.rejected]
        renamed = pair.model_copy(update={"chosen": chosen, "rejected": rejected})
        line = renamed.model_dump_json()
        lines.append(f"{line}\n")
    text = "".join(lines)
    written_file = prepared / PREFERENCES_FILE
    written_file.write_text(text, encoding="utf-8")


def _prepare_prompts(spec: JobSpec, file: Path, staging: Path) -> PreparedInputs:
    """Check a file of prompts and write it as training reads it: without what was left out."""
    try:
        found = read_prompt_file(file, spec.recipe.prompts_held_out)
    except OrchestratorError as error:
        return PreparedInputs(error=error)
    folder = staging / PROMPTS
    folder.mkdir(parents=True)
    text = written(found.prompts)
    written_file = folder / PROMPTS_FILE
    written_file.write_text(text, encoding="utf-8")
    channel = spec.recipe.dataset.inputs[PROMPTS]
    return PreparedInputs(
        trees={channel: tree_of_folder("data", folder)},
        texts={"prompts": found.prompts},
        prompts=tuple(found.prompts),
        left_out=tuple(found.warnings),
    )


def reads_masks(recipe: Recipe) -> bool:
    """Whether a recipe learns what the masks of its images show."""
    return isinstance(recipe, Denoising) and recipe.masked_loss


def _left_out(images: Path) -> DatasetError:
    """Return the error for condition pictures that the recipe would not look at."""
    shown = printable(str(images / CONDITIONS_FOLDER))
    message = f"There are condition pictures in {shown}, and the job would compute others from the pictures."
    return DatasetError(message, next_step=f"train on them: -s 'conditions=[\"{GIVEN}\"]'; or move them elsewhere")


def _told(dataset: Dataset, folder: Path) -> Tree | None:
    """Write what a job is told of its images; None where there is nothing to tell."""
    if not dataset.told:
        return None
    Findings(problems=dataset.told[:MOST_FINDINGS]).write(folder)
    return tree_of_folder("data", folder)
