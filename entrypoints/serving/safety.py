"""The safety checker that some base models bring: its verdict is told, and no image is changed by it.

Pipelines of diffusers return a black image in place of one that it flags; here whoever asked decides what to do.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPImageProcessor

from entrypoints.models.parts import load_module
from orchestrator.contract.events import Warned, emit
from orchestrator.contract.model_file import ModelFileError
from orchestrator.contract.model_layout import FEATURE_EXTRACTOR, SAFETY_CHECKER, find_weights, names_of


class SafetyChecker:
    """Compares an image's CLIP embedding with those of concepts (arXiv 2210.04610 describes it)."""

    def __init__(self, network: Any, extractor: Any) -> None:
        self.network = network
        self.extractor = extractor

    @torch.no_grad()
    def flags(self, image: Image.Image) -> bool:
        """Return whether an image is nearer to a concept than the checker lets pass."""
        device = next(self.network.parameters()).device
        pixels = self.extractor(image, return_tensors="pt").pixel_values
        blackened = [np.zeros((1, 1, 3))]  # it paints these over, and not the image
        _, (flagged,) = self.network(pixels.to(device), blackened)
        return bool(flagged)


def load_checker(folder: Path, device: torch.device) -> SafetyChecker | None:
    """Return the checker of the base model in `folder`, in float32; None when it has none whose weights can be read.

    Raises ModelFileError for one that is damaged.
    """
    weights = find_weights(SAFETY_CHECKER, names_of(folder))
    if weights is None:
        if (folder / SAFETY_CHECKER).is_dir():
            message = "The base model's safety checker has no safetensors file: images are drawn without its verdict."
            emit(Warned(message=message))
        return None
    try:
        extractor = CLIPImageProcessor.from_pretrained(folder / FEATURE_EXTRACTOR, local_files_only=True)
    except (OSError, ValueError) as error:
        what = f"{FEATURE_EXTRACTOR}/ has no preprocessor_config.json that can be read, which {SAFETY_CHECKER}/ needs"
        raise ModelFileError(what) from error
    network = load_module(StableDiffusionSafetyChecker, folder / SAFETY_CHECKER, weights)
    network.requires_grad_(False)
    network.eval()
    return SafetyChecker(network.to(device), extractor)
