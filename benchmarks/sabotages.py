"""Mistakes that people make in training code, data or models, each to be planted into a run that is otherwise good."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # entrypoints: reached by path, never installed

from benchmarks.sample_job import sample_recipe  # noqa: E402
from entrypoints.models.ddpm import Ddpm  # noqa: E402
from entrypoints.models.latent_diffusion import LatentDiffusion  # noqa: E402
from entrypoints.models.stable_diffusion import StableDiffusion  # noqa: E402
from entrypoints.training import loop  # noqa: E402
from entrypoints.training.denoising import DenoisingObjective  # noqa: E402
from entrypoints.training.optimizers import SavedOptimizer  # noqa: E402

Patches = Callable[[], Any]
"""Gives a context in which a mistake is planted."""


@contextmanager
def nothing() -> Iterator[None]:
    """Plant nothing in the code."""
    yield


@dataclass(frozen=True)
class Sabotage:
    """A mistake in a run that has the recipe's defaults otherwise."""

    planted: Patches = nothing
    """In the code."""
    recipe: str = "dreambooth"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """That differ from the defaults."""
    shuffled: bool = False
    """Whether each picture has the caption of another."""


def wrong_sign() -> Any:
    """Climb the loss."""
    own = DenoisingObjective._loss  # noqa: SLF001 - the place of the mistake
    return patch.object(DenoisingObjective, "_loss", lambda self, parts: -own(self, parts))


def zero_rate() -> Any:
    """Never move."""
    return patch.object(loop, "learning_rate", return_value=0.0)


def frozen_adapter() -> Any:
    """Give the optimizer copies of the weights."""
    own = SavedOptimizer.__init__

    def of_copies(self: SavedOptimizer, recipe: Any, parameters: Any, second: Any = None) -> None:
        copies = {name: nn.Parameter(parameter.detach().clone()) for name, parameter in parameters.items()}
        own(self, recipe, copies, second)

    return patch.object(SavedOptimizer, "__init__", of_copies)


def scaled_latents(factor: float) -> Any:
    """Forget the autoencoder's scaling factor, or apply it twice."""
    own = LatentDiffusion.encode_images
    return patch.object(LatentDiffusion, "encode_images", lambda self, images: own(self, images) * factor)


def double_shift() -> Any:
    """Add the noise of other times than the denoiser is told."""
    own = Ddpm.noised
    return patch.object(Ddpm, "noised", lambda self, latents, noise, times: own(self, latents, noise, times // 4))


def other_target() -> Any:
    """Ask for the noise where the model predicts the velocity."""

    def the_noise(self: Ddpm, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:  # noqa: ARG001
        return noise

    return patch.object(Ddpm, "target", the_noise)


def other_noise() -> Any:
    """Ask for noise that was not added."""
    own = Ddpm.target
    return patch.object(
        Ddpm, "target", lambda self, latents, noise, times: own(self, latents, torch.randn_like(noise), times)
    )


def detached_graph() -> Any:
    """Cut the gradient between the denoiser and the loss."""
    own = StableDiffusion.predict

    def detached(self: StableDiffusion, *args: Any, **kwargs: Any) -> Tensor:
        predicted = own(self, *args, **kwargs)
        return predicted.detach() + 0 * predicted

    return patch.object(StableDiffusion, "predict", detached)


def adapter_beside() -> Any:
    """Predict with the adapter switched off, but let its weights decay."""
    own = StableDiffusion.predict

    def beside(self: StableDiffusion, *args: Any, **kwargs: Any) -> Tensor:
        adapters = [value for name, value in self.denoiser.named_parameters() if "lora_" in name]
        self.denoiser.disable_adapters()
        predicted = own(self, *args, **kwargs)
        self.denoiser.enable_adapters()
        pull = sum(adapter.square().sum() for adapter in adapters) * 1e-6
        return predicted + (pull - pull.detach() if torch.is_grad_enabled() else 0)

    return patch.object(StableDiffusion, "predict", beside)


def overflowing_decoder() -> Any:
    """Decode to NaN, as some autoencoders do in float16."""
    own = AutoencoderKL.decode

    def overflow(self: AutoencoderKL, latents: Tensor, **kwargs: Any) -> Any:
        (pixels,) = own(self, latents, **kwargs)
        return (pixels * float("nan"),)

    return patch.object(AutoencoderKL, "decode", overflow)


def rate_times(factor: float) -> Sabotage:
    """Train at a multiple of the default rate."""
    usual = sample_recipe("dreambooth").model_dump()["learning_rate"]
    return Sabotage(settings={"learning_rate": factor * usual})


SABOTAGES: Mapping[str, Sabotage] = {
    "wrong sign": Sabotage(wrong_sign),
    "zero rate": Sabotage(zero_rate),
    "optimizer of copies": Sabotage(frozen_adapter),
    "latents not scaled": Sabotage(lambda: scaled_latents(5.5)),
    "latents scaled twice": Sabotage(lambda: scaled_latents(0.18)),
    "noise of other times": Sabotage(double_shift),
    "noise as the target of a velocity": Sabotage(other_target),
    "noise that was not added": Sabotage(other_noise),
    "detached graph": Sabotage(detached_graph),
    "adapter that is not used": Sabotage(adapter_beside),
    "rate a hundred times too high": rate_times(100),
    "captions of other images": Sabotage(recipe="lora", shuffled=True),
    "autoencoder that overflows": Sabotage(overflowing_decoder),
}
