"""Base models: where they come from, how they are loaded, and the little in which their families differ.

What a recipe needs of a family is `encode_prompts` (words to conditions), `predict` (the denoiser with those
conditions) and `pipeline` (plain diffusers, for drawing). A condition is a dict of tensors whose first dimension is
the sample, so that another family can carry more of them (pooled embeddings, sizes) through the same code.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from entrypoints.models.base import Conditions
from entrypoints.runtime.failures import TrainingError, failure_of
from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.families import (
    CLIP_FOLDER,
    family_of,
    files_sha256,
    setting_files,
    weight_files,
)

PREDICTION_TYPES = ("epsilon", "v_prediction")
NEXT_STEP = (
    'Give base_model a folder in the diffusers layout with safetensors weights, a Hugging Face id, or "builtin".'
)


@dataclass(frozen=True)
class BaseModel:
    """A loaded model of the Stable Diffusion 1 and 2 family."""

    pipeline: StableDiffusionPipeline
    """Plain diffusers, in float32."""
    reference: BaseModelReference
    """What the adapter's manifest says of it."""
    folder: Path
    """Where its files are."""
    clip: CLIPModel | None
    """Both towers of the CLIP it was trained with, if it brings them."""

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """Words to token ids."""
        return self.pipeline.tokenizer

    @property
    def text_encoder(self) -> CLIPTextModel:
        """Token ids to prompt embeddings."""
        return self.pipeline.text_encoder

    @property
    def vae(self) -> AutoencoderKL:
        """Pictures to latents and back."""
        return self.pipeline.vae

    @property
    def unet(self) -> UNet2DConditionModel:
        """The denoiser."""
        return self.pipeline.unet

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.unet.device
        return device

    @property
    def scale(self) -> int:
        """Pixels to a latent, along each side."""
        return int(self.pipeline.vae_scale_factor)

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts: "epsilon" or "v_prediction"."""
        return str(self.pipeline.scheduler.config.get("prediction_type", "epsilon"))

    def alphas_cumprod(self) -> Tensor:
        """Return the noise schedule the model was trained with, shape (timesteps,), on its device."""
        scheduler = DDPMScheduler.from_config(self.pipeline.scheduler.config)
        return torch.as_tensor(scheduler.alphas_cumprod, device=self.device)

    def encode_prompts(self, prompts: list[str]) -> Conditions:
        """Return the conditions of prompts; gradients flow to whatever of the text encoder is trained."""
        hidden, _ = self.pipeline.encode_prompt(prompts, self.device, 1, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": hidden}  # (batch, tokens, width)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
        """Run the denoiser; noisy latents (batch, channels, height, width) and timesteps (batch,)."""
        prediction: Tensor = self.unet(noisy, timesteps, return_dict=False, **conditions)[0]
        return prediction


def load_base_model(folder: Path, model_id: str, revision: str | None, device: torch.device) -> BaseModel:
    """Load the model in `folder`, safetensors only and no code of its own; raises TrainingError("base-model")."""
    try:
        base = _load(folder, model_id, revision, device)
    except Exception as error:  # loaders of strangers' files raise anything
        if failure_of(error):  # out of memory, disk full
            raise
        message = f'The base model "{model_id}" cannot be loaded: {type(error).__name__}: {error}'
        raise TrainingError("base-model", message, NEXT_STEP) from error
    if base.prediction_type not in PREDICTION_TYPES:
        message = f'The base model "{model_id}" predicts "{base.prediction_type}", which cannot be trained.'
        raise TrainingError("base-model", message, f"Choose one that predicts {' or '.join(PREDICTION_TYPES)}.")
    return base


def _load(folder: Path, model_id: str, revision: str | None, device: torch.device) -> BaseModel:
    family = family_of(folder)
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder,
        use_safetensors=True,
        local_files_only=True,
        torch_dtype=torch.float32,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.requires_grad_(False)
    reference = BaseModelReference(id=model_id, revision=revision, fingerprint=fingerprint(folder), family=family)
    return BaseModel(pipeline.to(device), reference, folder, _load_clip(folder, device))


def _load_clip(folder: Path, device: torch.device) -> CLIPModel | None:
    if not (folder / CLIP_FOLDER / "config.json").is_file():
        return None
    clip = CLIPModel.from_pretrained(
        folder / CLIP_FOLDER, use_safetensors=True, local_files_only=True, dtype=torch.float32
    )
    return clip.requires_grad_(False).eval().to(device)


def fingerprint(folder: Path) -> str:
    """Return one hash over the weight files of denoiser, autoencoder and text encoder."""
    return files_sha256(folder, weight_files(folder))


def settings_sha256(folder: Path) -> str:
    """Return one hash over everything beside the weights that changes what a model computes: configs, vocabulary."""
    return files_sha256(folder, setting_files(folder))


def vision_normalisation(folder: Path) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation of the colours a model's CLIP expects, in RGB order."""
    path = folder / CLIP_FOLDER / "preprocessor_config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    # the constants of the original CLIP (arXiv 2103.00020)
    mean = config.get("image_mean", [0.48145466, 0.4578275, 0.40821073])
    return mean, config.get("image_std", [0.26862954, 0.26130258, 0.27577711])
