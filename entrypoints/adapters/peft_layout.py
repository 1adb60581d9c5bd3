"""Relatives of LoRA that a diffusers LoRA file cannot hold, in PEFT's own layout: a folder for each part.

LoKr and LoHa (arXiv 2309.14859) write the change of a layer as a Kronecker or a Hadamard product of small matrices;
OFT (arXiv 2306.07280) rotates its weights by orthogonal blocks, which keeps the angles between its neurons. DoRA
(arXiv 2402.09353) is here when it changes text encoders: transformers drops its lengths from a LoRA file.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from peft import (
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftType,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from peft.tuners.lycoris_utils import LycorisLayer
from safetensors.torch import load_file
from torch import Tensor

from entrypoints.adapters.injected import Injected
from entrypoints.adapters.weights import save_weights
from entrypoints.models.base import BaseModel, part_of
from orchestrator.contract.adapter import PEFT, PEFT_CONFIG_FILE, PEFT_FILE, AdapterManifest
from orchestrator.contract.families import ATTENTION
from orchestrator.contract.model_file import read_object

PREFIX = "base_model.model."
"""Of each name in PEFT's files: the wrappers around the model that they were saved from."""


def lokr_config(rank: int, alpha: float, layers: Sequence[str]) -> LoKrConfig:
    """Return PEFT's configuration of LoKr."""
    return LoKrConfig(r=rank, alpha=alpha, target_modules=list(layers))


def loha_config(rank: int, alpha: float, layers: Sequence[str]) -> LoHaConfig:
    """Return PEFT's configuration of LoHa."""
    return LoHaConfig(r=rank, alpha=alpha, target_modules=list(layers))


def oft_config(rank: int, alpha: float, layers: Sequence[str]) -> OFTConfig:  # noqa: ARG001 - a rotation has no scale
    """Return PEFT's configuration of OFT, whose blocks have `rank` rows."""
    return OFTConfig(r=0, oft_block_size=rank, target_modules=list(layers))


def dora_config(rank: int, alpha: float, layers: Sequence[str]) -> LoraConfig:
    """Return PEFT's configuration of DoRA."""
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(layers), use_dora=True)


CONFIGS: Mapping[str, Callable[[int, float, Sequence[str]], PeftConfig]] = {
    "lokr": lokr_config,
    "loha": loha_config,
    "oft": oft_config,
    "dora": dora_config,
}
"""By the recipe's `tuner`."""
_CLASSES: Mapping[str, type[PeftConfig]] = {
    PeftType.LOKR.value: LoKrConfig,
    PeftType.LOHA.value: LoHaConfig,
    PeftType.OFT.value: OFTConfig,
    PeftType.LORA.value: LoraConfig,
}


class PeftLayout(Injected):
    """Adapters of one kind on the denoiser and, when the recipe trains them, on the text encoders."""

    kind = PEFT

    def __init__(
        self,
        base: BaseModel,
        tuner: str,
        *,
        rank: int,
        alpha: float,
        text_encoder: bool,
        seed: int,
        targets: str = ATTENTION,
    ) -> None:
        super().__init__(
            base,
            partial(CONFIGS[tuner], rank, alpha),
            text_encoder=text_encoder,
            seed=seed,
            targets=targets,
        )

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write `adapter_config.json` and `adapter_model.safetensors` into a folder for each part."""
        for part, module in self.modules.items():
            target = folder / part
            target.mkdir()
            # PEFT turns the list of layers into a set, whose order differs from run to run.
            values = {**self.configs[part].to_dict(), "inference_mode": True}
            text = json.dumps(values, indent=2, sort_keys=True, default=sorted)
            (target / PEFT_CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
            weights: dict[str, Tensor] = {}
            for name, weight in get_peft_model_state_dict(module).items():
                weights[PREFIX + name] = weight
            save_weights(weights, target / PEFT_FILE, header)


def load(
    base: BaseModel,
    folder: Path,
    manifest: AdapterManifest,
    weight: float,
) -> None:
    """Put the adapter into the pipeline, scaled by `weight`; raises ValueError where that is impossible.

    Every method has a scale but OFT: a rotation has none.
    """
    name = f"adapter-{manifest.files_sha256[:16]}"
    for part in manifest.parts:
        config = read_config(folder / part / PEFT_CONFIG_FILE)
        if config.peft_type == PeftType.OFT and weight != 1:
            raise ValueError("it rotates weights (OFT), and has no strength other than 1")
        module = part_of(base, part)
        module.add_adapter(config, name)
        weights: dict[str, Tensor] = {}
        for saved_name, tensor in load_file(folder / part / PEFT_FILE, device=str(base.device)).items():
            weights[saved_name.removeprefix(PREFIX)] = tensor
        expected = set(get_peft_model_state_dict(module, adapter_name=name))
        if set(weights) != expected:
            raise ValueError(f"its weights of {part} are not those that its configuration describes")
        set_peft_model_state_dict(module, weights, adapter_name=name)
        for layer in module.modules():
            if isinstance(layer, LoraLayer | LycorisLayer):
                layer.set_scale(name, weight)


def read_config(path: Path) -> PeftConfig:
    """Read a part's configuration; raises ValueError for one of another method."""
    values = read_object(path)
    known = _CLASSES.get(str(values.get("peft_type")))
    if known is None:
        raise ValueError(f'its configuration is of the method "{values.get("peft_type")}"')
    config: PeftConfig = known(**values)
    return config
