"""The pictures that a ControlNet is measured on: training did not use them, and it draws them anew from their maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator import datasets
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.command_line import command
from orchestrator.contract.conditions import LEARNED
from orchestrator.contract.datasets import CONDITIONS_FOLDER
from orchestrator.contract.evaluation import EvaluationPrompts, most_pictures
from orchestrator.contract.problem import Problem
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.recipes.controlnet import ControlNet
from orchestrator.datasets import Dataset, InspectedImage
from orchestrator.errors import DatasetError, SpecError
from orchestrator.storage.tree import tree_of_folder
from orchestrator.terminal import printable

REFERENCE_OPTION = "--reference"
_LEAST = 2
"""Pictures, so that each can be shown the map of another."""
_ENOUGH = 5
"""Pictures from which intervals over them mean something."""
_UNDONE = "Nothing was started"


class HeldOut(NamedTuple):
    """Pictures that were prepared for an evaluation, with their prompts."""

    folder: Path
    """What the job reads of them."""
    dataset: Dataset
    prompts: EvaluationPrompts


class Asked(NamedTuple):
    """The ControlNet that is measured, and by what."""

    name: str
    """Its name, or that of its folder."""
    recipe: ControlNet
    manifest: AdapterManifest
    reference: Path | None
    """Folder of pictures that training did not use."""
    prompts: Sequence[EvaluationPrompt]
    """What a person has written, which take turns; without them each picture has its caption."""


def require_computable(name: str, manifest: AdapterManifest) -> None:
    """Raise SpecError for a ControlNet that is shown maps which a network computes: a job has no weights of those."""
    trained = manifest.config.get("conditions")
    if not isinstance(trained, list | tuple):
        return
    for kind in trained:
        if kind in LEARNED:
            control = f"{kind}=PICTURE,weights=FOLDER"
            raise SpecError(
                f'"{name}" is shown {kind} maps, which a network computes, and an evaluation has no weights of it. '
                f"{_UNDONE}.",
                next_step=f"look at what it draws: {command('adapters', 'draw', name, '--control', control)}",
            )


def prepare_held_out(asked: Asked, size: int, destination: Path) -> HeldOut:
    """Write the pictures to `destination` for a job, with a side of about `size` pixels; some of them if they are many.

    Raises SpecError where no pictures are named or maps are missing, and DatasetError for what cannot be used.
    """
    recipe = asked.recipe
    reference = _require_reference(asked)
    dataset = datasets.prepare(
        reference,
        destination,
        resolution=size,
        with_conditions=recipe.reads_conditions,
        option=REFERENCE_OPTION,
    )
    shown = printable(str(reference))
    if len(dataset.images) < _LEAST:
        raise DatasetError(
            f"{shown} holds one picture, and no other whose map an image could be shown in place of its own. "
            f"{_UNDONE}.",
            next_step=f"put at least {_LEAST} there, better 8 or more, none of which training has used",
        )
    images = _spread(dataset.images, most_pictures(recipe.conditions))
    is_training = tree_of_folder("data", destination).sha256 == asked.manifest.dataset_sha256
    # What is said of condition pictures here is more than that they lie in a sub-folder.
    found = [warning for warning in dataset.warnings if warning.where != f"{CONDITIONS_FOLDER}/"]
    warnings = [*found, *_warnings(asked, reference, dataset, images, is_training=is_training)]
    _keep(destination, dataset.images, images)
    prompts = [recipe.judged_by_text(image.caption or "") for image in images]
    if asked.prompts:
        prompts = [asked.prompts[number % len(asked.prompts)] for number in range(len(images))]
    # The captions that are read lie with the prompts, and are checked there.
    kept = tuple(image.model_copy(update={"caption": None}) for image in images)
    prepared = dataset.model_copy(update={"images": kept, "warnings": tuple(warnings)})
    drawn = EvaluationPrompts(prompts=tuple(prompts), are_captions=is_training and not asked.prompts)
    return HeldOut(destination, prepared, drawn)


def _require_reference(asked: Asked) -> Path:
    """Return the folder of pictures; raises SpecError without one, or without the maps that have to be given."""
    if asked.reference is None:
        again = command("evaluate", asked.name, REFERENCE_OPTION, "DIR")
        raise SpecError(
            f'"{asked.name}" is a ControlNet, which is measured on pictures that training did not use. {_UNDONE}.',
            next_step=f"name a folder of some: {again}",
        )
    if asked.recipe.reads_conditions and not datasets.has_conditions(asked.reference):
        wanted = printable(str(asked.reference / CONDITIONS_FOLDER))
        raise SpecError(
            f'"{asked.name}" is shown maps that were given, and there are none in {wanted}. {_UNDONE}.',
            next_step=f"put the map of each picture into {wanted}, under the picture's own name",
        )
    return asked.reference


def _warnings(
    asked: Asked,
    reference: Path,
    dataset: Dataset,
    images: Sequence[InspectedImage],
    *,
    is_training: bool,
) -> list[Problem]:
    """Return what a person should know of the pictures, of which some are drawn: such as that training used them."""
    shown = printable(str(reference))
    recipe = asked.recipe
    warnings = []
    if is_training:
        what = "are the pictures that it was trained on"
        warnings.append(Problem(where=shown, what=what, fix="name others, which say what it does with new ones"))
    if datasets.has_conditions(reference) and not recipe.reads_conditions:
        kinds = " and ".join(recipe.conditions)
        what = f"is left out: it was trained on {kinds} maps, which are computed from the pictures"
        warnings.append(Problem(where=f"{shown}/{CONDITIONS_FOLDER}", what=what))
    if len(images) < _ENOUGH:
        what = f"holds {len(images)} pictures, so few that the intervals say little"
        warnings.append(Problem(where=shown, what=what, fix="add pictures that training did not use"))
    if len(images) < len(dataset.images):
        what = f"{len(images)} of its {len(dataset.images)} pictures are drawn anew, from all over the folder"
        warnings.append(Problem(where=shown, what=what))
    if not asked.prompts and not any(image.caption for image in images):
        what = "holds no captions, so the pictures are drawn anew without words"
        fix = "write captions beside them, or name prompts: --prompts FILE"
        warnings.append(Problem(where=shown, what=what, fix=fix))
    return warnings


def _spread(images: Sequence[InspectedImage], most: int) -> list[InspectedImage]:
    """Return at most so many of the images, evenly spread."""
    count = min(most, len(images))
    return [images[number * len(images) // count] for number in range(count)]


def _keep(destination: Path, every: Sequence[InspectedImage], kept: Sequence[InspectedImage]) -> None:
    """Remove all that was prepared but the pictures and maps of images that are kept: the captions too."""
    numbers = {f"{number:05}" for number, image in enumerate(every, start=1) if image in kept}
    for path in destination.rglob("*"):
        if path.is_file() and path.stem not in numbers:
            path.unlink()
