"""Low-rank adapters (LoRA, arXiv 2106.09685) on the attention projections, through PEFT.

A projection W becomes W + (alpha / rank) B A, with A of (rank, inputs) and B of (outputs, rank) (sec. 4.1). B starts at
zero, so that a fresh adapter changes nothing.

The file is right for loaders that read no alpha (diffusers 0.33 and older): its B is (alpha / rank) B, and its alpha is
the rank.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from entrypoints.adapters.low_rank import LowRankLinear
from entrypoints.adapters.tuner import trainable
from entrypoints.adapters.weights import file_prefix, save_weights
from entrypoints.models.base import BaseModel, part_of
from entrypoints.runtime.randomness import keyed_seed
from orchestrator.contract.adapter import LORA, LORA_LOADING, AdapterManifest


class Lora:
    """Adapters of one rank on the denoiser and, when the recipe trains them, on the text encoders."""

    kind = LORA

    def __init__(
        self,
        base: BaseModel,
        *,
        rank: int,
        alpha: float,
        text_encoder: bool,
        seed: int,
    ) -> None:
        family = base.family
        self.base = base
        self.trains_text_encoder = text_encoder

        projections = {family.denoiser: family.denoiser_projections}
        if text_encoder:
            for part in family.text_encoders:
                projections[part] = family.text_projections

        # PEFT draws A from the global generator.
        torch.manual_seed(keyed_seed(seed, "lora"))
        self.configs: dict[str, LoraConfig] = {}
        self.modules: dict[str, nn.Module] = {}
        for part, names in projections.items():
            config = make_config(rank, alpha, names)
            module = part_of(base, part)
            module.add_adapter(config)
            self.configs[part] = config
            self.modules[part] = module
        self.parts = tuple(self.modules)
        self.parameters = trainable(self.modules)

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write `pytorch_lora_weights.safetensors` as diffusers does; its metadata describes the layers."""
        metadata = {**header, LORA_ADAPTER_METADATA_KEY: self.lora_metadata()}

        def write(tensors: dict[str, Tensor], path: str) -> None:
            save_weights(tensors, Path(path), metadata)

        layers = {}
        for part, module in self.modules.items():
            weights = self.folded(part, get_peft_model_state_dict(module))
            layers[f"{part}_lora_layers"] = convert_state_dict_to_diffusers(weights)
        pipeline_class = type(self.base.pipeline)
        pipeline_class.save_lora_weights(folder, save_function=write, **layers)

    def folded(self, part: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a part's weights by their names in the file, with the scale of the adapter in B."""
        config = self.configs[part]
        scale = config.lora_alpha / config.r
        prefix = file_prefix(self.base, part)
        found: dict[str, Tensor] = {}
        for name, weight in weights.items():
            is_b = name.endswith("lora_B.weight")
            found[prefix + name] = weight * scale if is_b else weight
        return found

    def lora_metadata(self) -> str:
        """Return the arguments of `LoraConfig` from which a loader rebuilds the layers of each part, as sorted JSON.

        PEFT turns the list of modules into a set, whose order differs from run to run.
        """
        values: dict[str, object] = {}
        for part, config in self.configs.items():
            values[f"{part}.r"] = config.r
            values[f"{part}.lora_alpha"] = config.r  # a scale of 1: B has the adapter's own in it
            values[f"{part}.target_modules"] = config.target_modules
        return json.dumps(values, sort_keys=True, default=sorted)

    @contextmanager
    def untuned(self, load: Callable[[], BaseModel]) -> Iterator[BaseModel]:  # noqa: ARG002 - nothing to load
        """Turn the adapters off: what is left are the base's own weights."""
        for module in self.modules.values():
            module.disable_adapters()
        try:
            yield self.base
        finally:
            for module in self.modules.values():
                module.enable_adapters()

    def fuse(self) -> None:
        """Add each layer's (alpha / rank) B A to its W. A and B stay as they are, to be saved."""
        for module in self.modules.values():
            for layer in module.modules():
                if isinstance(layer, BaseTunerLayer):
                    layer.merge()


def make_config(rank: int, alpha: float, projections: Sequence[str]) -> LoraConfig:
    """Return PEFT's configuration of one part; `projections` are the ends of the adapted modules' names."""
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(projections),
    )
    # Despite the underscore it is PEFT's documented way to bring a layer of one's own:
    # https://huggingface.co/docs/peft/developer_guides/custom_models
    config._register_custom_module({nn.Linear: LowRankLinear})  # noqa: SLF001
    return config


def load(
    base: BaseModel,
    folder: Path,
    manifest: AdapterManifest,
    weight: float,
) -> None:
    """Put the adapter into the pipeline, scaled by `weight`; raises ValueError where it would leave a part as it is.

    diffusers only warns of a file without weights for a part.
    """
    name = f"adapter-{manifest.files_sha256[:16]}"
    base.pipeline.load_lora_weights(str(folder), adapter_name=name, **LORA_LOADING)
    changed = base.pipeline.get_list_adapters()  # by part
    for part in manifest.parts or (base.family.denoiser,):  # manifests of earlier versions name none
        if part not in changed:
            raise ValueError(f"it has no weights of {part}")
    base.pipeline.set_adapters([name], adapter_weights=[weight])
