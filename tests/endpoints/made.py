"""Small adapters of the built-in base model in a home, without the training."""

from pathlib import Path

import torch

from entrypoints.adapters.lora import Lora
from entrypoints.models.loading import load_base_model
from orchestrator.contract.adapter import LORA, AdapterManifest
from orchestrator.contract.recipe import BUILTIN
from orchestrator.resources import BUILTIN_MODEL


def publish_loras(home: Path, *names: str, fingerprint: str | None = None) -> None:
    """Publish an adapter of each name, each other weights, as jobs of this machine do."""
    for name in names:
        base = load_base_model(BUILTIN_MODEL, BUILTIN, None, torch.device("cpu"), with_clip=False)
        seed = sum(name.encode())
        tuner = Lora(base, rank=2, alpha=4, text_encoder=False, seed=seed, targets="attention")
        random = torch.Generator().manual_seed(seed)
        for parameter in tuner.parameters.values():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=random)
        folder = home / "adapters" / name
        folder.mkdir(parents=True)
        tuner.save(folder, {"format": "pt"})
        reference = base.reference
        if fingerprint is not None:
            reference = reference.model_copy(update={"fingerprint": fingerprint})
        AdapterManifest(
            kind=LORA,
            parts=("unet",),
            recipe="dreambooth",
            config={"seed": 0, "inference_steps": 4, "guidance_scale": 4.0, "resolution": 64},
            base_model=reference,
            dataset_sha256="d",
            bundle_sha256="b",
            trigger="sks monster",
            libraries={},
        ).write(folder)
