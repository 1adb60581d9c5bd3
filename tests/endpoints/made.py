"""Small adapters of the built-in base model in a home, without the training."""

from pathlib import Path
from typing import Any

import torch

from entrypoints.adapters.controlnet import ControlNetTuner
from entrypoints.adapters.embedding import Embedding
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_base_model
from orchestrator.contract.adapter import CONTROLNET, EMBEDDING, LORA, AdapterManifest, BaseModelReference
from orchestrator.contract.recipe import BUILTIN
from orchestrator.resources import BUILTIN_MODEL


def publish_loras(home: Path, *names: str, fingerprint: str | None = None) -> None:
    """Publish an adapter of each name, each other weights, as jobs of this machine do."""
    for name in names:
        base = builtin()
        seed = sum(name.encode())
        tuner = Lora(base, rank=2, alpha=4, text_encoder=False, seed=seed, targets="attention")
        disturb(tuner, seed)
        folder = home / "adapters" / name
        folder.mkdir(parents=True)
        tuner.save(folder, {"format": "pt"})
        reference = base.reference
        if fingerprint is not None:
            reference = reference.model_copy(update={"fingerprint": fingerprint})
        manifest(reference, kind=LORA, parts=("unet",), recipe="dreambooth", trigger="sks monster").write(folder)


def publish_embedding(home: Path, name: str) -> None:
    """Publish the learned word "<word>"."""
    base = builtin()
    tuner = Embedding(base, placeholder="<word>", initializer="monster", vectors=2)
    disturb(tuner, 1)
    folder = home / "adapters" / name
    folder.mkdir(parents=True)
    tuner.save(folder, {"format": "pt"})
    manifest(base.reference, kind=EMBEDDING, parts=tuner.parts, recipe="textual-inversion", trigger="<word>").write(
        folder
    )


def publish_control(home: Path, name: str) -> None:
    """Publish a ControlNet that follows nothing in particular, but does."""
    base = builtin()
    tuner = ControlNetTuner(base, seed=1)
    disturb(tuner, 1)
    folder = home / "adapters" / name
    folder.mkdir(parents=True)
    tuner.save(folder, {"format": "pt"})
    manifest(base.reference, kind=CONTROLNET, recipe="controlnet", config={"conditions": ["canny"]}).write(folder)


def builtin() -> BaseModel:
    return load_base_model(BUILTIN_MODEL, BUILTIN, None, torch.device("cpu"), with_clip=False)


def disturb(tuner: Tuner, seed: int) -> None:
    """Stand in for training: move everything that is trained."""
    random = torch.Generator().manual_seed(seed)
    for parameter in tuner.parameters.values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=random)


def manifest(reference: BaseModelReference, **fields: Any) -> AdapterManifest:
    return AdapterManifest.model_validate(
        {
            "config": {"seed": 0, "inference_steps": 4, "guidance_scale": 4.0, "resolution": 64},
            "base_model": reference,
            "dataset_sha256": "d",
            "bundle_sha256": "b",
            "libraries": {},
            **fields,
        }
    )
