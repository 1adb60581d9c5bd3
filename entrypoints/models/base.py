"""What training, adapters, evaluation and serving need of a base model, whatever its family.

What a family packs, scales or signs in its own way is hidden behind these methods.
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
"""What the denoiser is told of the prompts, by name; the first dimension of each tensor is the sample.

A dict, so that a family can carry more (pooled embeddings, sizes) through the same code.
"""


class Residuals(NamedTuple):
    """What a ControlNet adds to a U-Net (arXiv 2302.05543)."""

    down: Sequence[Tensor]
    """One tensor for each skip connection."""
    middle: Tensor
    """Added to the output of the middle block."""


class NoiseProcess(Protocol):
    """How samples become noise, what the denoiser predicts, and how samples are weighted in the loss.

    Latents and noise: (batch, channels, height, width); times: (batch,), in the units that the denoiser takes.
    """

    def times(self, count: int, random: torch.Generator) -> Tensor:
        """Draw the times of `count` training samples, on the generator's device."""
        ...

    def scaled_times(self, times: Tensor, factor: float) -> Tensor:
        """Return times multiplied by a factor, as far as there are such."""
        ...

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return the latents mixed with noise, as they are at those times."""
        ...

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return what the denoiser should predict."""
        ...

    def clean(self, noisy: Tensor, prediction: Tensor, times: Tensor) -> Tensor:
        """Return the latents without noise that a prediction for noisy ones stands for."""
        ...

    def weights(self, times: Tensor, snr_gamma: float | None) -> Tensor | None:
        """Return each sample's weight in the loss, (batch,); None when all have the same.

        `snr_gamma` is the gamma of Min-SNR weighting (arXiv 2303.09556), None without it.
        """
        ...


class BaseModel(Protocol):
    """A loaded base model."""

    family: Family
    """Its entry in the contract."""
    pipeline: Any  # the family's pipeline in diffusers
    """Plain diffusers: draws images. In float32, but for what `precision.py` holds in half of it."""
    reference: BaseModelReference
    """Name and fingerprint, as the adapter's manifest records them."""
    folder: Path
    """Where its files are."""
    clip: CLIPModel | None
    """Both towers of the CLIP it was trained with, if it brings them."""
    process: NoiseProcess
    """The noise it was trained with."""
    adapters: list[str]
    """Hash of each finished adapter that was loaded into it."""

    @property
    def denoiser(self) -> nn.Module:
        """The network that is trained to predict the target of `process`."""
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
        """Return mean and standard deviation of the latents: (images, 2, channels, height, width).

        Training draws other latents from this distribution at each visit of an image.
        """
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """Return the conditions of prompts; gradients flow to whatever of the text encoders is trained."""
        ...

    def encode_guided(self, prompts: Sequence[str], negative: str | None) -> Conditions:
        """Return what classifier-free guidance takes: the conditions of `negative` for each prompt, then the prompts'.

        Without `negative`, the model's own conditions of no prompt.
        """
        ...

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Return the pictures of latents (images, channels, height, width)."""
        ...

    def framed(self, conditions: Conditions, framings: Tensor) -> Conditions:
        """Return conditions with how the images were cut, where the denoiser is told.

        framings: (batch, 4), height and width of the original image, and the pixels that were cut away at its top and
        left after it was scaled. Conditions without it are those of images that are drawn.
        """
        ...

    def predict(
        self,
        noisy: Tensor,
        times: Tensor,
        conditions: Conditions,
        residuals: Residuals | None = None,
    ) -> Tensor:
        """Run the denoiser on noisy latents (batch, channels, height, width) at times (batch,)."""
        ...

    def residuals(
        self,
        control: nn.Module,
        noisy: Tensor,
        times: Tensor,
        conditions: Conditions,
        pictures: Tensor,
    ) -> Residuals:
        """Run a ControlNet, which is told what `predict` tells the denoiser.

        `pictures` are the condition pictures in pixels, (batch, 3, height, width) from 0 to 1.
        """
        ...


def part_of(base: BaseModel, part: str) -> nn.Module:
    """Return the denoiser or a text encoder by the name of its folder."""
    if part == base.family.denoiser:
        return base.denoiser
    return base.text_encoders[part]
