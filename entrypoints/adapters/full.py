"""Full fine-tuning: every weight of the denoiser, and of the text encoders when asked for."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from entrypoints.adapters.tuner import trainable
from entrypoints.adapters.weights import save_weights
from entrypoints.models.base import BaseModel, part_of
from orchestrator.contract.adapter import AdapterManifest

KIND = "full"


class Full:
    """All weights of some parts."""

    kind = KIND

    def __init__(self, base: BaseModel, *, text_encoder: bool) -> None:
        self.base = base
        self.trains_text_encoder = text_encoder
        text_parts = base.family.text_encoders if text_encoder else ()
        self.parts = (base.family.denoiser, *text_parts)
        self.modules: dict[str, nn.Module] = {}
        for part in self.parts:
            self.modules[part] = part_of(base, part).requires_grad_(True)
        self.parameters = trainable(self.modules)

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write a folder for each part in the layout of diffusers and transformers."""
        for part, module in self.modules.items():
            (folder / part).mkdir()
            shutil.copyfile(self.base.folder / part / "config.json", folder / part / "config.json")
            save_weights(module.state_dict(), folder / part / _weights_file(self.base, part), header)


def _weights_file(base: BaseModel, part: str) -> str:
    is_denoiser = part == base.family.denoiser
    return "diffusion_pytorch_model.safetensors" if is_denoiser else "model.safetensors"


@torch.no_grad()
def load(base: BaseModel, folder: Path, manifest: AdapterManifest, weight: float) -> None:
    """Move the weights of each part from the base's (weight 0) to the adapter's (weight 1)."""
    for part in manifest.parts:
        module = part_of(base, part)
        tuned = load_file(folder / part / _weights_file(base, part), device=str(base.device))
        blended = {name: torch.lerp(value, tuned[name], weight) for name, value in module.state_dict().items()}
        module.load_state_dict(blended)
