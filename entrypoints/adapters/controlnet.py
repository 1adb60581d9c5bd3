"""A ControlNet (arXiv 2302.05543): a trained copy of a U-Net's first half, in the files that diffusers reads."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import ControlNetModel
from torch import nn

from entrypoints.adapters.tuner import trainable
from entrypoints.adapters.weights import save_weights
from entrypoints.models.base import BaseModel
from entrypoints.models.precision import exact_denoiser
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.randomness import keyed_seed
from orchestrator.contract.adapter import CONTROLNET, CONTROLNET_FILE
from orchestrator.contract.control_network import condition_widths
from orchestrator.contract.families import require_steerable

PART = "controlnet"


class ControlNetTuner:
    """A new network beside the base model, all of whose own weights stay as they are."""

    kind = CONTROLNET
    parts: tuple[str, ...] = ()
    trains_text_encoder = False

    def __init__(self, base: BaseModel, *, seed: int, gradient_checkpointing: bool = False) -> None:
        try:
            require_steerable(base.family)
        except ValueError as error:
            raise TrainingError("base-model", f"{error}.", "Name another model with --base-model.") from error
        self.base = base
        self.network = new_network(base, seed)
        if gradient_checkpointing:
            self.network.enable_gradient_checkpointing()
        self.parameters: dict[str, nn.Parameter] = trainable({PART: self.network})

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write `config.json` and the weights, for `ControlNetModel.from_pretrained`."""
        (folder / "config.json").write_text(self.network.to_json_string(), encoding="utf-8")
        save_weights(self.network.state_dict(), folder / CONTROLNET_FILE, header)

    @contextmanager
    def untuned(self, load: Callable[[], BaseModel]) -> Iterator[BaseModel]:  # noqa: ARG002 - nothing to load
        """Return the base model, which does not know of the network beside it."""
        yield self.base

    def fuse(self) -> None:
        """Do nothing: a ControlNet is no change of weights."""


def new_network(base: BaseModel, seed: int) -> ControlNetModel:
    """Return a ControlNet that changes nothing yet: its outputs go through convolutions of zeros (sec. 3.1).

    What brings the condition from pixels to latents halves its sides as often as the autoencoder does. The copy is of
    the weights as the files have them, also where the base model holds rounded ones: what is trained begins exact.
    """
    torch.manual_seed(keyed_seed(seed, PART))  # of the weights that the U-Net has no counterpart for
    halvings = base.pipeline.vae_scale_factor.bit_length() - 1
    network = ControlNetModel.from_unet(
        exact_denoiser(base),
        conditioning_embedding_out_channels=condition_widths(halvings),
    )
    return network.requires_grad_(True).to(base.device).train()
