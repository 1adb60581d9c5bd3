"""From a folder in the diffusers layout to a base model of its family."""

import json
from importlib import import_module
from pathlib import Path

import torch
from transformers import CLIPModel

from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError, failure_of
from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.families import CLIP_FOLDER, family_of, files_sha256, setting_files, weight_files

NEXT_STEP = (
    'Give base_model a folder in the diffusers layout with safetensors weights, a Hugging Face id, or "builtin".'
)


def load_base_model(folder: Path, model_id: str, revision: str | None, device: torch.device) -> BaseModel:
    """Load the model in `folder`, safetensors only and no code of its own; raises TrainingError("base-model")."""
    try:
        return _load(folder, model_id, revision, device)
    except Exception as error:  # loaders of strangers' files raise anything
        if failure_of(error):  # out of memory, disk full, a process that cannot be trained
            raise
        message = f'The base model "{model_id}" cannot be loaded: {type(error).__name__}: {error}'
        raise TrainingError("base-model", message, NEXT_STEP) from error


def _load(folder: Path, model_id: str, revision: str | None, device: torch.device) -> BaseModel:
    family = family_of(folder)
    reference = BaseModelReference(id=model_id, revision=revision, fingerprint=fingerprint(folder), family=family.name)
    module = import_module(f"{__package__}.{family.module}")
    base: BaseModel = module.load(folder, reference, _load_clip(folder, device), device)
    return base


def _load_clip(folder: Path, device: torch.device) -> CLIPModel | None:
    if not (folder / CLIP_FOLDER / "config.json").is_file():
        return None
    clip = CLIPModel.from_pretrained(
        folder / CLIP_FOLDER, use_safetensors=True, local_files_only=True, dtype=torch.float32
    )
    return clip.requires_grad_(False).eval().to(device)


def fingerprint(folder: Path) -> str:
    """Return one hash over the weight files of denoiser, autoencoder and text encoders."""
    return files_sha256(folder, weight_files(folder))


def settings_sha256(folder: Path) -> str:
    """Return one hash over everything beside the weights that changes what a model computes: configs, vocabulary."""
    return files_sha256(folder, setting_files(folder))


def vision_normalisation(folder: Path) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation of the colours a model's CLIP expects, in RGB order."""
    path = folder / CLIP_FOLDER / "preprocessor_config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    # the constants of the original CLIP (arXiv 2103.00020)
    mean = config.get("image_mean", [0.48145466, 0.4578275, 0.40821073])
    return mean, config.get("image_std", [0.26862954, 0.26130258, 0.27577711])
