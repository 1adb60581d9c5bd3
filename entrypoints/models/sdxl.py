"""Stable Diffusion XL (arXiv 2307.01952): two text encoders, and a U-Net that is also told the image's size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor
from transformers import CLIPModel

from entrypoints.models.base import Conditions
from entrypoints.models.ddpm import Ddpm
from entrypoints.models.latent_diffusion import LOADING, LatentDiffusion, each, freeze, load_parts
from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.families import SDXL


class StableDiffusionXL(LatentDiffusion):
    """A loaded model of the SDXL family."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """Return the states of both encoders side by side, (batch, tokens, width), and the second's pooled one.

        The states are those before each encoder's last layer; pooled: (batch, width of the second encoder).
        """
        hidden, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return {"encoder_hidden_states": hidden, "text_embeds": pooled}

    def encode_guided(self, prompts: Sequence[str], negative: str | None) -> Conditions:
        """Return the states of the negative prompt and of the prompts; zeros without a negative one, as in training."""
        hidden, unguided, pooled, unguided_pooled = self.pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=each(negative, prompts),
        )
        return {
            "encoder_hidden_states": torch.cat([unguided, hidden]),
            "text_embeds": torch.cat([unguided_pooled, pooled]),
        }

    def told(self, noisy: Tensor, conditions: Conditions) -> dict[str, Any]:
        """Return what the U-Net is told: also that the image is uncropped and of the size of these latents.

        That is what the pipeline tells it when it draws: original size and target size are the image's, and the crop
        starts at its corner (sec. 2.2).
        """
        scale = self.pipeline.vae_scale_factor  # pixels for each latent
        height = noisy.shape[-2] * scale
        width = noisy.shape[-1] * scale
        sizes = torch.tensor(
            [height, width, 0, 0, height, width],  # original size, top and left of the crop, target size
            dtype=noisy.dtype,
            device=noisy.device,
        )
        added = {
            "text_embeds": conditions["text_embeds"],
            "time_ids": sizes.repeat(len(noisy), 1),
        }
        return {
            "encoder_hidden_states": conditions["encoder_hidden_states"],
            "added_cond_kwargs": added,
        }


def load(
    folder: Path,
    reference: BaseModelReference,
    clip: CLIPModel | None,
    device: torch.device,
) -> StableDiffusionXL:
    """Load the model in `folder` with all weights frozen."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        folder,
        **SDXL.pipeline_arguments,
        **load_parts(folder, SDXL),
        **LOADING,
    )
    process = Ddpm.of_scheduler(pipeline.scheduler.config, device)
    return StableDiffusionXL(
        family=SDXL,
        pipeline=freeze(pipeline, SDXL, device),
        reference=reference,
        folder=folder,
        clip=clip,
        process=process,
    )
