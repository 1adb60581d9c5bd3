"""From a folder in the diffusers layout to a base model of its family."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from transformers import CLIPModel

from entrypoints.models.base import BaseModel
from entrypoints.models.parts import load_module
from entrypoints.models.precision import Half
from entrypoints.runtime.failures import TrainingError, failure_of, first_line
from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.families import INDEX_FILE, Family, family_in
from orchestrator.contract.model_check import model_problems
from orchestrator.contract.model_file import read_object
from orchestrator.contract.model_layout import (
    CLIP_FOLDER,
    clip_names,
    files_sha256,
    find_weights,
    setting_files,
    weight_files,
)

NEXT_STEP = (
    "Mend or replace the model, or choose another with --base-model: a folder in the diffusers layout, a Hugging Face "
    "id, or builtin; then submit again."
)
# The constants of the original CLIP (arXiv 2103.00020), red, green and blue.
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_DEVIATION = [0.26862954, 0.26130258, 0.27577711]


def in_float32(family: Family) -> None:
    """Hold nothing in half precision."""


def load_base_model(
    folder: Path,
    model_id: str,
    revision: str | None,
    device: torch.device,
    *,
    with_clip: bool = True,
    half: Callable[[Family], Half | None] = in_float32,
) -> BaseModel:
    """Load the model in `folder`, safetensors only and no code of its own.

    `model_id` and `revision` are what the adapter's manifest will call it. `with_clip` says whether its CLIP will
    measure figures; nothing else needs it. `half` says what of a family's model is held in half precision. Raises
    TrainingError("base-model") when it cannot be loaded.
    """
    try:
        return _load(folder, model_id, revision, device, with_clip=with_clip, half=half)
    except Exception as error:  # a library may raise anything at files that others wrote
        if failure_of(error):  # out of memory, disk full, a noise process that cannot be trained
            raise
        # The library names files of the job, which nobody finds elsewhere.
        name = _known_as(folder, model_id)
        reason = first_line(error).replace(str(folder), name)
        raise TrainingError(
            "base-model",
            f'The base model "{name}" cannot be loaded: {reason}',
            NEXT_STEP,
        ) from error


def _load(
    folder: Path,
    model_id: str,
    revision: str | None,
    device: torch.device,
    *,
    with_clip: bool,
    half: Callable[[Family], Half | None],
) -> BaseModel:
    problems = model_problems(folder)
    if problems:
        found = "; ".join(f"{problem.what} ({problem.fix})" for problem in problems)
        name = _known_as(folder, model_id)
        raise TrainingError("base-model", f'The base model "{name}" cannot be trained: {found}.', NEXT_STEP)
    family = family_in(folder / INDEX_FILE, model_id)
    reference = BaseModelReference(
        id=model_id,
        revision=revision,
        fingerprint=fingerprint(folder),
        family=family.name,
    )
    clip = None
    if with_clip and (folder / CLIP_FOLDER / "config.json").is_file():
        clip = load_clip(folder / CLIP_FOLDER, device)
    module = import_module(f"{__package__}.{family.module}")
    base: BaseModel = module.load(folder, reference, clip, device, half(family))
    return base


def _known_as(folder: Path, model_id: str) -> str:
    """Return what a person calls a model: a job on their machine has a link to the folder, and else its name alone."""
    if folder.is_symlink():
        return str(folder.resolve())
    return model_id


def load_clip(folder: Path, device: torch.device) -> CLIPModel:
    """Load the CLIP in `folder`, frozen; raises ModelFileError as `load_module` does."""
    weights = find_weights(CLIP_FOLDER, clip_names(folder))
    clip: CLIPModel = load_module(CLIPModel, folder, weights)
    clip.requires_grad_(False)
    clip.eval()
    return clip.to(device)


def fingerprint(folder: Path) -> str:
    """Return one hash over the weight files of denoiser, autoencoder and text encoders."""
    return files_sha256(folder, weight_files(folder))


def settings_sha256(folder: Path) -> str:
    """Return one hash over everything else that changes what a model computes: configurations, vocabularies."""
    return files_sha256(folder, setting_files(folder))


def vision_normalisation(folder: Path) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation by which the CLIP in `folder` normalises RGB values from 0 to 1."""
    config = {}
    path = folder / "preprocessor_config.json"
    if path.is_file():
        config = read_object(path)
    mean = config.get("image_mean", CLIP_MEAN)
    deviation = config.get("image_std", CLIP_DEVIATION)
    return mean, deviation
