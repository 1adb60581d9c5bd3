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
from entrypoints.models.precision import Half
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

    def framed(self, conditions: Conditions, framings: Tensor) -> Conditions:
        """Return conditions that hold how the images were cut."""
        return {**conditions, "framings": framings}

    def told(self, noisy: Tensor, conditions: Conditions) -> dict[str, Any]:
        """Return what the U-Net is told: also the size of the original image, how it was cut, and its size (sec. 2.2).

        Without framings the image is uncropped and of the size of these latents, as the pipeline says when it draws.
        """
        scale = self.pipeline.vae_scale_factor  # pixels for each latent
        height = noisy.shape[-2] * scale
        width = noisy.shape[-1] * scale
        target = torch.tensor([height, width], dtype=noisy.dtype, device=noisy.device).repeat(len(noisy), 1)
        framings = conditions.get("framings")
        if framings is None:
            framings = torch.cat([target, torch.zeros_like(target)], dim=1)
        added = {
            "text_embeds": conditions["text_embeds"],
            "time_ids": torch.cat([framings, target], dim=1),
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
    half: Half | None = None,
) -> StableDiffusionXL:
    """Load the model in `folder` with all weights frozen, those of some parts in half precision."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        folder,
        **SDXL.pipeline_arguments,
        **load_parts(folder, SDXL),
        **LOADING,
    )
    process = Ddpm.of_scheduler(pipeline.scheduler.config, device)
    return StableDiffusionXL(
        family=SDXL,
        pipeline=freeze(pipeline, SDXL, device, half),
        reference=reference,
        folder=folder,
        clip=clip,
        process=process,
    )
