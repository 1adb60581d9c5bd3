"""What the families share whose pipeline in diffusers has a U-Net, an `AutoencoderKL` and CLIP text encoders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, PreTrainedModel

from entrypoints.models.base import Residuals
from entrypoints.models.ddpm import Ddpm
from entrypoints.runtime.pictures import to_tensor
from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.families import Family

LOADING: Mapping[str, Any] = {"use_safetensors": True, "local_files_only": True, "torch_dtype": torch.float32}
"""Arguments of `from_pretrained`: no pickles, no network, and full precision, which trained weights need."""


@dataclass(frozen=True)
class LatentDiffusion:
    """A loaded pipeline with a U-Net; see `base.BaseModel` for what each member means."""

    family: Family
    pipeline: Any
    reference: BaseModelReference
    folder: Path
    clip: CLIPModel | None
    process: Ddpm

    @property
    def denoiser(self) -> UNet2DConditionModel:
        """The U-Net."""
        return getattr(self.pipeline, self.family.denoiser)

    @property
    def vae(self) -> AutoencoderKL:
        """Pictures to latents and back."""
        return self.pipeline.vae

    @property
    def text_encoders(self) -> Mapping[str, PreTrainedModel]:
        """Part name to text encoder, in the family's order."""
        return {part: getattr(self.pipeline, part) for part in self.family.text_encoders}

    @property
    def tokenizers(self) -> Sequence[CLIPTokenizer]:
        """The tokenizer of each text encoder."""
        return [getattr(self.pipeline, part) for part in self.family.tokenizers]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.denoiser.device

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return mean and standard deviation of the latents: (images, 2, channels, height, width).

        Pictures go through the autoencoder one at a time, so that what one is encoded to does not depend on its
        neighbours; and in float32, because half precision overflows in some autoencoders (that of SDXL among them).
        """
        moments = []
        with torch.autocast(self.device.type, enabled=False):
            for image in images:
                posterior = self.vae.encode(to_tensor(image).to(self.device)).latent_dist
                moments.append(torch.stack([posterior.mean, posterior.std], dim=1))
        return torch.cat(moments) * self.vae.config.scaling_factor

    def run_denoiser(self, noisy: Tensor, times: Tensor, residuals: Residuals | None, **conditions: Any) -> Tensor:
        """Run the U-Net with the arguments that its family adds."""
        if residuals is not None:
            conditions["down_block_additional_residuals"] = residuals.down
            conditions["mid_block_additional_residual"] = residuals.middle
        prediction: Tensor = self.denoiser(noisy, times, return_dict=False, **conditions)[0]
        return prediction


def freeze(pipeline: Any, family: Family, device: torch.device) -> Any:
    """Move a pipeline to a device, take the gradients from all its weights, and silence its progress bar."""
    pipeline.set_progress_bar_config(disable=True)
    for part in family.weight_parts:
        getattr(pipeline, part).requires_grad_(False)
    return pipeline.to(device)
