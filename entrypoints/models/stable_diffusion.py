"""Stable Diffusion 1 and 2: a U-Net that is told of the prompt by one CLIP text encoder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel

from entrypoints.models.base import Conditions
from entrypoints.models.ddpm import Ddpm
from entrypoints.models.latent_diffusion import LOADING, LatentDiffusion, each, freeze, load_parts
from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.families import STABLE_DIFFUSION


class StableDiffusion(LatentDiffusion):
    """A loaded model of the Stable Diffusion 1 and 2 family."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """Return the text encoder's last hidden states: (batch, tokens, width)."""
        hidden, _ = self.pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return {"encoder_hidden_states": hidden}

    def encode_guided(self, prompts: Sequence[str], negative: str | None) -> Conditions:
        """Return the states of the negative prompt and of the prompts: (2 x batch, tokens, width)."""
        hidden, unguided = self.pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=each(negative, prompts),
        )
        return {"encoder_hidden_states": torch.cat([unguided, hidden])}


def load(
    folder: Path,
    reference: BaseModelReference,
    clip: CLIPModel | None,
    device: torch.device,
) -> StableDiffusion:
    """Load the model in `folder` with all weights frozen."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder,
        **STABLE_DIFFUSION.pipeline_arguments,
        **load_parts(folder, STABLE_DIFFUSION),
        **LOADING,
    )
    process = Ddpm.of_scheduler(pipeline.scheduler.config, device)
    return StableDiffusion(
        family=STABLE_DIFFUSION,
        pipeline=freeze(pipeline, STABLE_DIFFUSION, device),
        reference=reference,
        folder=folder,
        clip=clip,
        process=process,
    )
