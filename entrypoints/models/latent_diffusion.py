"""What the families share whose pipeline in diffusers has a U-Net, an `AutoencoderKL` and CLIP text encoders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer, PreTrainedModel

from entrypoints.models.base import Conditions, Residuals
from entrypoints.models.ddpm import Ddpm
from entrypoints.models.parts import load_part
from entrypoints.models.precision import Half, hold
from entrypoints.models.sampling import FEW_STEPS, rehearse
from entrypoints.runtime.pictures import to_tensor
from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.families import Family
from orchestrator.contract.tokens import length_of

LOADING: Mapping[str, Any] = {"use_safetensors": True, "local_files_only": True, "torch_dtype": torch.float32}
"""Arguments of a pipeline's `from_pretrained`: no pickles, no network, and float32 until `freeze`."""


@dataclass(frozen=True)
class LatentDiffusion:
    """A loaded pipeline with a U-Net; see `base.BaseModel` for what each member means."""

    family: Family
    pipeline: Any
    reference: BaseModelReference
    folder: Path
    clip: CLIPModel | None
    process: Ddpm
    adapters: list[str] = field(default_factory=list)

    @property
    def denoiser(self) -> UNet2DConditionModel:
        """The U-Net."""
        return getattr(self.pipeline, self.family.denoiser)

    @property
    def vae(self) -> AutoencoderKL:
        """Images to latents and back."""
        return self.pipeline.vae

    @property
    def text_encoders(self) -> Mapping[str, PreTrainedModel]:
        """Part name to text encoder, in the family's order."""
        encoders: dict[str, PreTrainedModel] = {}
        for part in self.family.text_encoders:
            encoders[part] = getattr(self.pipeline, part)
        return encoders

    @property
    def tokenizers(self) -> Sequence[CLIPTokenizer]:
        """The tokenizer of each text encoder."""
        return [getattr(self.pipeline, part) for part in self.family.tokenizers]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        # diffusers' own property looks at every layer of the model, each time.
        return next(self.denoiser.parameters()).device

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return mean and standard deviation of the latents: (images, 2, channels, height, width).

        Images go through the autoencoder one at a time, so that the latents of one do not depend on its neighbours;
        and in float32, because half precision overflows in some autoencoders (that of SDXL among them).
        """
        moments = []
        with torch.autocast(self.device.type, enabled=False):
            for image in images:
                pixels = to_tensor(image).to(self.device)
                posterior = self.vae.encode(pixels).latent_dist
                both = [posterior.mean, posterior.std]
                moments.append(torch.stack(both, dim=1))
        # The factor brings latents to about unit variance, which the noise process expects (arXiv 2112.10752, app. G).
        return torch.cat(moments) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Return the pictures of latents (images, channels, height, width), as the pipeline makes them."""
        pixels = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        images: list[Image.Image] = self.pipeline.image_processor.postprocess(pixels)
        return images

    def framed(self, conditions: Conditions, framings: Tensor) -> Conditions:  # noqa: ARG002 - most are not told
        """Return the conditions as they are."""
        return conditions

    def told(self, noisy: Tensor, conditions: Conditions) -> dict[str, Any]:  # noqa: ARG002 - for families with sizes
        """Return the keyword arguments by which a U-Net of this family, or its ControlNet, is told of the prompts."""
        return dict(conditions)

    def predict(
        self,
        noisy: Tensor,
        times: Tensor,
        conditions: Conditions,
        residuals: Residuals | None = None,
    ) -> Tensor:
        """Run the U-Net on noisy latents (batch, channels, height, width) at times (batch,)."""
        arguments = self.told(noisy, conditions)
        if residuals is not None:
            arguments["down_block_additional_residuals"] = residuals.down
            arguments["mid_block_additional_residual"] = residuals.middle
        prediction: Tensor
        (prediction,) = self.denoiser(
            noisy,
            times,
            return_dict=False,
            **arguments,
        )
        return prediction

    def residuals(
        self,
        control: nn.Module,
        noisy: Tensor,
        times: Tensor,
        conditions: Conditions,
        pictures: Tensor,
    ) -> Residuals:
        """Run a ControlNet (arXiv 2302.05543, eq. 9) on condition pictures (batch, 3, height, width) from 0 to 1."""
        down, middle = control(
            noisy,
            times,
            controlnet_cond=pictures,
            return_dict=False,
            **self.told(noisy, conditions),
        )
        return Residuals(down, middle)


def each(negative: str | None, prompts: Sequence[str]) -> list[str] | None:
    """Return a negative prompt for each prompt, as pipelines take it."""
    if negative is None:
        return None
    return [negative] * len(prompts)


def load_parts(folder: Path, family: Family) -> dict[str, nn.Module]:
    """Load everything with weights, by the name of its folder; raises as `load_part` does."""
    classes: dict[str, Any] = {"vae": AutoencoderKL}
    for part, name in family.classes.items():
        library = diffusers if part == family.denoiser else transformers
        classes[part] = getattr(library, name)
    return {part: load_part(classes[part], folder, part) for part in family.weight_parts}


def freeze(pipeline: Any, family: Family, device: torch.device, half: Half | None) -> Any:
    """Make a pipeline ready: on its device, all weights without gradients, no progress bar, no endless prompts."""
    pipeline.set_progress_bar_config(disable=True)
    for encoder, tokenizer in zip(family.text_encoders, family.tokenizers, strict=True):
        places = getattr(pipeline, encoder).config.max_position_embeddings
        limited = getattr(pipeline, tokenizer)
        limited.model_max_length = length_of(limited.model_max_length, places)
    rehearse(pipeline, FEW_STEPS)  # what only drawing reads should fail now, and not after hours of training
    for part in family.weight_parts:
        module = getattr(pipeline, part)
        module.requires_grad_(False)
        if half is not None and part in half.parts:
            hold(module, half.dtype, device)
    return pipeline.to(device)
