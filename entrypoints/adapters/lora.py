"""Low-rank adapters (LoRA, arXiv 2106.09685), through PEFT."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from entrypoints.adapters.tuner import trainable
from entrypoints.adapters.weights import save_weights
from entrypoints.models.stable_diffusion import BaseModel
from entrypoints.runtime.randomness import keyed_seed

UNET_PROJECTIONS = ["to_k", "to_out.0", "to_q", "to_v"]


TEXT_PROJECTIONS = ["k_proj", "out_proj", "q_proj", "v_proj"]


class Lora:
    """Low-rank adapters on the attention projections (LoRA, arXiv 2106.09685), through PEFT."""

    def __init__(self, base: BaseModel, *, rank: int, alpha: float, text_encoder: bool, seed: int) -> None:
        self.base = base
        self.trains_text_encoder = text_encoder
        torch.manual_seed(keyed_seed(seed, "lora"))  # PEFT draws the first factor from the global generator
        self.configs = {"unet": _lora_config(rank, alpha, UNET_PROJECTIONS)}
        base.unet.add_adapter(self.configs["unet"])
        if text_encoder:
            self.configs["text_encoder"] = _lora_config(rank, alpha, TEXT_PROJECTIONS)
            base.text_encoder.add_adapter(self.configs["text_encoder"])
        self.parameters = trainable(self._modules())

    def _modules(self) -> dict[str, nn.Module]:
        return {part: getattr(self.base, part) for part in self.configs}

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write `pytorch_lora_weights.safetensors` as diffusers does; its metadata carries rank and alpha."""

        def write(tensors: dict[str, Tensor], path: str) -> None:
            save_weights(tensors, Path(path), {**header, LORA_ADAPTER_METADATA_KEY: self._metadata()})

        layers = {
            f"{part}_lora_layers": convert_state_dict_to_diffusers(get_peft_model_state_dict(module))
            for part, module in self._modules().items()
        }
        StableDiffusionPipeline.save_lora_weights(folder, save_function=write, **layers)

    def _metadata(self) -> str:
        """Return the arguments of `LoraConfig` from which a loader rebuilds the layers, sorted."""
        fields = ("r", "lora_alpha", "target_modules")
        values = {f"{part}.{name}": getattr(config, name) for part, config in self.configs.items() for name in fields}
        return json.dumps(values, sort_keys=True, default=sorted)  # PEFT turns the list of modules into a set


def _lora_config(rank: int, alpha: float, projections: list[str]) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=projections)
