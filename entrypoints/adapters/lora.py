"""Low-rank adapters (LoRA, arXiv 2106.09685) on the attention projections, through PEFT."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from entrypoints.adapters.tuner import trainable
from entrypoints.adapters.weights import save_weights
from entrypoints.models.base import BaseModel, part_of
from entrypoints.runtime.randomness import keyed_seed
from orchestrator.contract.adapter import AdapterManifest

KIND = "lora"
_METADATA_FIELDS = ("r", "lora_alpha", "target_modules")


class Lora:
    """Adapters of one rank on the denoiser, and on the text encoders when asked for."""

    kind = KIND

    def __init__(self, base: BaseModel, *, rank: int, alpha: float, text_encoder: bool, seed: int) -> None:
        self.base = base
        self.trains_text_encoder = text_encoder
        torch.manual_seed(keyed_seed(seed, "lora"))  # PEFT draws the first factor from the global generator
        self.configs = {base.family.denoiser: _config(rank, alpha, base.family.denoiser_projections)}
        if text_encoder:
            for part in base.family.text_encoders:
                self.configs[part] = _config(rank, alpha, base.family.text_projections)
        self.modules: dict[str, nn.Module] = {}
        for part, config in self.configs.items():
            module = part_of(base, part)
            module.add_adapter(config)
            self.modules[part] = module
        self.parts = tuple(self.configs)
        self.parameters = trainable(self.modules)

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write `pytorch_lora_weights.safetensors` as diffusers does; its metadata carries rank and alpha."""

        def write(tensors: dict[str, Tensor], path: str) -> None:
            save_weights(tensors, Path(path), {**header, LORA_ADAPTER_METADATA_KEY: self._metadata()})

        layers = {}
        for part, module in self.modules.items():
            layers[f"{part}_lora_layers"] = convert_state_dict_to_diffusers(get_peft_model_state_dict(module))
        type(self.base.pipeline).save_lora_weights(folder, save_function=write, **layers)

    def _metadata(self) -> str:
        """Return the arguments of `LoraConfig` from which a loader rebuilds the layers, sorted."""
        values = {}
        for part, config in self.configs.items():
            for name in _METADATA_FIELDS:
                values[f"{part}.{name}"] = getattr(config, name)
        return json.dumps(values, sort_keys=True, default=sorted)  # PEFT turns the list of modules into a set


def _config(rank: int, alpha: float, projections: Sequence[str]) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(projections))


def load(base: BaseModel, folder: Path, manifest: AdapterManifest, weight: float) -> None:
    """Put the adapter into the pipeline, scaled by `weight`."""
    name = f"adapter-{manifest.files_sha256[:16]}"
    base.pipeline.load_lora_weights(str(folder), adapter_name=name)
    base.pipeline.set_adapters([name], adapter_weights=[weight])
