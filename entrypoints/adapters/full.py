"""Full fine-tuning: every weight of the denoiser, and of the text encoder when asked for."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from entrypoints.adapters.tuner import trainable
from entrypoints.adapters.weights import save_weights
from entrypoints.models.stable_diffusion import BaseModel

WEIGHT_FILES = {"unet": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors"}


class Full:
    """Every weight of the denoiser, and of the text encoder when asked for."""

    def __init__(self, base: BaseModel, *, text_encoder: bool) -> None:
        self.base = base
        self.trains_text_encoder = text_encoder
        parts = ["unet", "text_encoder"] if text_encoder else ["unet"]
        self.modules: dict[str, nn.Module] = {part: getattr(base, part) for part in parts}
        for module in self.modules.values():
            module.requires_grad_(True)
        self.parameters = trainable(self.modules)

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write a folder for each model in the layout of diffusers and transformers."""
        for part, module in self.modules.items():
            (folder / part).mkdir()
            shutil.copyfile(self.base.folder / part / "config.json", folder / part / "config.json")
            save_weights(module.state_dict(), folder / part / WEIGHT_FILES[part], header)
