"""Full fine-tuning: all weights of the denoiser and, when the recipe trains them, of the text encoders."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from entrypoints.adapters.tuner import trainable
from entrypoints.adapters.weights import file_prefix, save_weights
from entrypoints.models.base import BaseModel, part_of
from orchestrator.contract.adapter import FULL, AdapterManifest
from orchestrator.contract.model_file import parse_object, read_text_bytes
from orchestrator.contract.model_layout import weights_file


class Full:
    """All weights of some parts of the base model.

    In float32 a trained parameter takes 16 bytes: its value, its gradient, and AdamW's two moments.
    """

    kind = FULL

    def __init__(self, base: BaseModel, *, text_encoder: bool) -> None:
        family = base.family
        self.base = base
        self.trains_text_encoder = text_encoder
        self.parts: tuple[str, ...] = (family.denoiser,)
        if text_encoder:
            self.parts += family.text_encoders
        self.modules: dict[str, nn.Module] = {}
        for part in self.parts:
            module = part_of(base, part)
            module.requires_grad_(True)
            self.modules[part] = module
        self.parameters = trainable(self.modules)

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write a folder for each part, in the layout of diffusers and transformers: config.json and weights."""
        for part, module in self.modules.items():
            target = folder / part
            target.mkdir()
            copy_config(self.base.folder / part / "config.json", target / "config.json")
            prefix = file_prefix(self.base, part)
            weights: dict[str, Tensor] = {}
            for name, weight in module.state_dict().items():
                weights[prefix + name] = weight
            save_weights(weights, target / weights_file(part), header)

    @contextmanager
    def untuned(self, load: Callable[[], BaseModel]) -> Iterator[BaseModel]:
        """Load a second copy: the weights of this one are no longer the base's."""
        yield load()

    def fuse(self) -> None:
        """Do nothing: the model's own weights are what was trained."""


def copy_config(source: Path, target: Path) -> None:
    """Copy a part's configuration, which may name the type of the base's weights; those that were trained are float32.

    transformers 5 loads weights in the type that is named, and would round them.
    """
    content = read_text_bytes(source)
    config = parse_object(content)
    for name in ("dtype", "torch_dtype"):  # of transformers 5, and of older ones
        if config.get(name, "float32") != "float32":
            config[name] = "float32"
            text = json.dumps(config, indent=2, sort_keys=True) + "\n"
            content = text.encode()
    target.write_bytes(content)


@torch.no_grad()
def load(
    base: BaseModel,
    folder: Path,
    manifest: AdapterManifest,
    weight: float,
) -> None:
    """Turn the weights of each part into a mix of the base's and the adapter's, one tensor at a time.

    The mix is linear: `weight` 0 gives the base's values, 1 the adapter's.
    """
    for part in manifest.parts:
        own = part_of(base, part).state_dict()
        prefix = file_prefix(base, part)
        path = folder / part / weights_file(part)
        with safe_open(path, framework="pt", device=str(base.device)) as file:
            saved_names = set(file.keys())
            for name, value in own.items():
                saved_name = prefix + name
                if saved_name not in saved_names:  # older files of ours have the names of transformers 5
                    saved_name = name
                value.lerp_(file.get_tensor(saved_name), weight)
