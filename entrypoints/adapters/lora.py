"""Low-rank adapters (LoRA, arXiv 2106.09685) through PEFT, in the file that diffusers reads.

A layer's W becomes W + (alpha / rank) B A, with A of (rank, inputs) and B of (outputs, rank) (sec. 4.1). B starts at
zero, so that a fresh adapter changes nothing. DoRA (arXiv 2402.09353) scales each output of that to a length of its
own, which is trained too.

The file is right for loaders that read no alpha (diffusers 0.33 and older): its B is (alpha / rank) B, and its alpha is
the rank.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from entrypoints.adapters.injected import Injected
from entrypoints.adapters.low_rank_layer import LowRankConv2d, LowRankLinear
from entrypoints.adapters.weights import file_prefix, save_weights
from entrypoints.models.base import BaseModel
from orchestrator.contract.adapter import LORA, AdapterManifest
from orchestrator.contract.families import ATTENTION


class Lora(Injected):
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
        targets: str = ATTENTION,
        dora: bool = False,
    ) -> None:
        self.rank = rank
        self.scale = alpha / rank
        self.dora = dora
        self.targets = targets

        def config_of(layers: Sequence[str]) -> LoraConfig:
            return make_config(rank, alpha, layers, dora=dora)

        super().__init__(
            base,
            config_of,
            text_encoder=text_encoder,
            seed=seed,
            targets=targets,
        )

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write `pytorch_lora_weights.safetensors` as diffusers does; its metadata describes the layers."""
        metadata = {**header, LORA_ADAPTER_METADATA_KEY: self.lora_metadata()}

        def write(tensors: dict[str, Tensor], path: str) -> None:
            save_weights(tensors, Path(path), metadata)

        layers = {}
        for part, module in self.modules.items():
            weights = self.folded(part, get_peft_model_state_dict(module))
            if self.targets == ATTENTION:
                # Names that older loaders know. It leaves those of other layers, and no loader reads a mixture.
                weights = convert_state_dict_to_diffusers(weights)
            layers[f"{part}_lora_layers"] = weights
        pipeline_class = type(self.base.pipeline)
        pipeline_class.save_lora_weights(folder, save_function=write, **layers)

    def folded(self, part: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a part's weights by their names in the file, with the scale of the adapter in B."""
        prefix = file_prefix(self.base, part)
        found: dict[str, Tensor] = {}
        for name, weight in weights.items():
            scaled = weight
            if name.endswith("lora_B.weight"):
                scaled = weight * self.scale
            found[prefix + name] = scaled
        return found

    def lora_metadata(self) -> str:
        """Return the arguments of `LoraConfig` from which a loader rebuilds the layers of each part, as sorted JSON.

        PEFT turns the list of modules into a set, whose order differs from run to run.
        """
        values: dict[str, object] = {}
        for part, config in self.configs.items():
            values[f"{part}.r"] = self.rank
            values[f"{part}.lora_alpha"] = self.rank  # a scale of 1: B has the adapter's own in it
            values[f"{part}.target_modules"] = config.target_modules
            if self.dora:
                values[f"{part}.use_dora"] = True
        return json.dumps(values, sort_keys=True, default=sorted)


def make_config(
    rank: int,
    alpha: float,
    layers: Sequence[str],
    *,
    dora: bool = False,
) -> LoraConfig:
    """Return PEFT's configuration of one part; `layers` are the ends of the adapted layers' names."""
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(layers),
        use_dora=dora,
    )
    if not dora:
        # Despite the underscore it is PEFT's documented way to bring layers of one's own:
        # https://huggingface.co/docs/peft/developer_guides/custom_models
        ours = {nn.Linear: LowRankLinear, nn.Conv2d: LowRankConv2d}
        config._register_custom_module(ours)  # noqa: SLF001
    return config


def name_of(manifest: AdapterManifest) -> str:
    """Return what an adapter is called within a pipeline."""
    return f"adapter-{manifest.files_sha256[:16]}"


def load(
    base: BaseModel,
    folder: Path,
    manifest: AdapterManifest,
    weight: float,
) -> None:
    """Put the adapter into the pipeline, scaled by `weight`; raises ValueError where it would leave a part as it is.

    diffusers only warns of a file without weights for a part.
    """
    name = name_of(manifest)
    base.pipeline.load_lora_weights(str(folder), adapter_name=name, **manifest.lora_loading)
    changed = base.pipeline.get_list_adapters()  # by part
    for part in manifest.parts or (base.family.denoiser,):  # manifests of earlier versions name none
        if part not in changed:
            raise ValueError(f"it has no weights of {part}")
    base.pipeline.set_adapters([name], adapter_weights=[weight])
