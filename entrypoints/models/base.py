"""What training, adapters, evaluation and serving need of a base model, whatever its family.

Conditions are a dict of tensors whose first dimension is the sample, so that a family can carry more of them (pooled
embeddings, sizes) through the same code. What a family packs, scales or signs in its own way is hidden behind these
methods.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.families import Family

Conditions = dict[str, Tensor]


class Residuals(NamedTuple):
    """What a ControlNet adds to a U-Net (arXiv 2302.05543)."""

    down: Sequence[Tensor]
    """One tensor for each skip connection."""
    middle: Tensor
    """Added to the output of the middle block."""


class NoiseProcess(Protocol):
    """How samples become noise, what the denoiser is asked for, and how samples are weighted.

    Latents and noise: (batch, channels, height, width); times: (batch,), as the denoiser takes them.
    """

    def times(self, count: int, random: torch.Generator) -> Tensor:
        """Draw the times of `count` training samples, on the generator's device."""
        ...

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return latents as they are at those times."""
        ...

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return what the denoiser should predict."""
        ...

    def weights(self, times: Tensor, snr_gamma: float | None) -> Tensor | None:
        """Return each sample's weight in the loss, (batch,); None when all weigh the same."""
        ...


class BaseModel(Protocol):
    """A loaded base model."""

    family: Family
    """Its entry in the contract."""
    pipeline: Any  # the family's pipeline in diffusers
    """Plain diffusers, in float32: draws pictures."""
    reference: BaseModelReference
    """What the adapter's manifest says of it."""
    folder: Path
    """Where its files are."""
    clip: CLIPModel | None
    """Both towers of the CLIP it was trained with, if it brings them."""
    process: NoiseProcess
    """The noise it was trained with."""

    @property
    def denoiser(self) -> nn.Module:
        """The network that is asked for noise."""
        ...

    @property
    def text_encoders(self) -> Mapping[str, nn.Module]:
        """Part name to text encoder, in the family's order."""
        ...

    @property
    def tokenizers(self) -> Sequence[CLIPTokenizer]:
        """The tokenizer of each text encoder."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return mean and standard deviation of the latents: (images, 2, channels, height, width)."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """Return the conditions of prompts; gradients flow to whatever of the text encoders is trained."""
        ...

    def predict(
        self, noisy: Tensor, times: Tensor, conditions: Conditions, residuals: Residuals | None = None
    ) -> Tensor:
        """Run the denoiser on noisy latents (batch, channels, height, width) at times (batch,)."""
        ...


def part_of(base: BaseModel, part: str) -> nn.Module:
    """Return the denoiser or a text encoder by the name of its folder."""
    return base.denoiser if part == base.family.denoiser else base.text_encoders[part]
