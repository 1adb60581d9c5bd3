"""Adapters as training would leave them, without the training."""

from pathlib import Path

import torch

from entrypoints.adapters.lora import Lora
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_base_model
from orchestrator.contract.adapter import LORA, AdapterManifest


def disturb(tuner: Tuner, seed: int) -> None:
    """Stand in for training: move everything that is trained by a lot."""
    random = torch.Generator().manual_seed(seed)
    for parameter in tuner.parameters.values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=random)


def write_lora(folder: Path, model: Path, seed: int, *, text: bool, targets: str, rank: int) -> Path:
    """Write an adapter of a model to a folder of its own and return it."""
    base = fresh(model)
    tuner = Lora(base, rank=rank, alpha=2 * rank, text_encoder=text, seed=seed, targets=targets)
    disturb(tuner, seed)
    folder.mkdir()
    tuner.save(folder, {"format": "pt"})
    return folder


def fresh(model: Path) -> BaseModel:
    return load_base_model(model, "tiny", None, torch.device("cpu"), with_clip=False)


def write_finished(folder: Path, model: Path, seed: int) -> Path:
    """Write a whole adapter, manifest included."""
    write_lora(folder, model, seed, text=False, targets="all", rank=2)
    AdapterManifest(
        kind=LORA,
        parts=("unet",),
        recipe="dreambooth",
        config={},
        base_model=fresh(model).reference,
        dataset_sha256="",
        bundle_sha256="",
        libraries={},
    ).write(folder)
    return folder
