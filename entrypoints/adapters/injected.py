"""What PEFT's adapters share: each changed layer of the model is wrapped by one that adds the change."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from entrypoints.adapters.tuner import trainable
from entrypoints.models.base import BaseModel, part_of
from entrypoints.runtime.randomness import keyed_seed
from orchestrator.contract.families import ATTENTION

ConfigOf = Callable[[Sequence[str]], PeftConfig]
"""From the ends of the names of a part's layers to PEFT's configuration of its adapter."""


class Injected:
    """Adapters of one configuration on the denoiser and, when the recipe trains them, on the text encoders."""

    def __init__(
        self,
        base: BaseModel,
        config_of: ConfigOf,
        *,
        text_encoder: bool,
        seed: int,
        targets: str = ATTENTION,
    ) -> None:
        family = base.family
        self.base = base
        self.trains_text_encoder = text_encoder

        layers = {family.denoiser: family.denoiser_targets[targets]}
        if text_encoder:
            for part in family.text_encoders:
                layers[part] = family.text_targets[targets]

        # PEFT draws the first weights from the global generator.
        torch.manual_seed(keyed_seed(seed, "lora"))
        self.configs: dict[str, PeftConfig] = {}
        self.modules: dict[str, nn.Module] = {}
        for part, names in layers.items():
            config = config_of(names)
            module = part_of(base, part)
            module.add_adapter(config)
            self.configs[part] = config
            self.modules[part] = module
        self.parts = tuple(self.modules)
        self.parameters = trainable(self.modules)

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
        """Add each layer's change to its weights. What was trained stays as it is, to be saved.

        Weights in half precision are left alone: they would round the change to a part of itself.
        """
        for module in self.modules.values():
            for layer in module.modules():
                if isinstance(layer, BaseTunerLayer) and layer.get_base_layer().weight.dtype == torch.float32:
                    layer.merge()
