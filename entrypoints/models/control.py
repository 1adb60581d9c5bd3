"""Draw with ControlNets beside the base model (arXiv 2302.05543): several at once, in some steps, under masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from entrypoints.models.base import BaseModel, Conditions, Residuals
from entrypoints.models.sampling import Drawing, DrawRequest, batches, generators_of


@dataclass(frozen=True)
class Control:
    """One ControlNet and what it is shown."""

    network: nn.Module
    """A ControlNetModel of diffusers, on the device of the base model."""
    condition: Tensor
    """The condition map, (1, 3, height, width) in pixels from 0 to 1; or one for each image."""
    scale: float = 1.0
    """What it adds is multiplied by it."""
    start: float = 0.0
    """Share of the steps after which it begins to act."""
    end: float = 1.0
    """Share of the steps after which it acts no more."""
    mask: Tensor | None = None
    """Where it acts, (1, 1, height, width) in pixels from 0, nowhere, to 1; everywhere when left out."""

    def acts(self, step: int, steps: int) -> bool:
        """Whether it acts in a step, counted from 0: all of the step has to lie between start and end."""
        begins = step / steps
        ends = (step + 1) / steps
        return begins >= self.start and ends <= self.end

    def scaled(self, residual: Tensor) -> Tensor:
        """Return a residual (batch, channels, height, width) scaled, and masked at its own size."""
        scaled = residual * self.scale
        if self.mask is None:
            return scaled
        size = residual.shape[-2:]
        mask = functional.interpolate(self.mask, size, mode="area")
        return scaled * mask


def draw_controlled(
    base: BaseModel,
    requests: Sequence[DrawRequest],
    drawing: Drawing,
    controls: Sequence[Control],
    check_stop: Callable[[], None],
    done: Callable[[int], None] | None = None,
) -> list[Image.Image]:
    """Draw images that follow controls, as diffusers' ControlNet pipelines do; see `sampling.draw`."""
    images: list[Image.Image] = []
    for batch in batches(base, requests, drawing):
        images += _draw_batch(base, batch, drawing, controls, check_stop)
        if done:
            done(len(images))
    return images


def draw_from_conditions(
    base: BaseModel,
    network: nn.Module,
    requests: Sequence[DrawRequest],
    conditions: Tensor,
    drawing: Drawing,
    check_stop: Callable[[], None],
    done: Callable[[int], None] | None = None,
) -> list[Image.Image]:
    """Draw images each of which follows a condition of its own: (images, 3, height, width), from 0 to 1."""
    images: list[Image.Image] = []
    for batch in batches(base, requests, drawing):
        start = len(images)
        some = conditions[start : start + len(batch)].to(base.device)
        images += _draw_batch(base, batch, drawing, [Control(network, some)], check_stop)
        if done:
            done(len(images))
    return images


@torch.no_grad()
def _draw_batch(
    base: BaseModel,
    requests: Sequence[DrawRequest],
    drawing: Drawing,
    controls: Sequence[Control],
    check_stop: Callable[[], None],
) -> list[Image.Image]:
    """Draw some images in one batch."""
    scheduler = base.pipeline.scheduler
    prompts = [request.prompt for request in requests]
    generators = generators_of(requests)
    conditions = base.encode_prompts(prompts)
    is_guided = drawing.guidance > 1
    if is_guided:
        conditions = base.encode_guided(prompts, drawing.negative_prompt)
    scheduler.set_timesteps(drawing.steps, device=base.device)
    options = base.pipeline.prepare_extra_step_kwargs(generators, eta=0.0)
    noise = _noise(base, drawing, generators)
    latents = noise * scheduler.init_noise_sigma
    steps = len(scheduler.timesteps)  # some schedulers take two for each that was asked for
    for step, time in enumerate(scheduler.timesteps):
        check_stop()
        noisy = latents
        if is_guided:
            noisy = torch.cat([latents, latents])
        noisy = scheduler.scale_model_input(noisy, time)
        times = time.expand(len(noisy))
        acting = [control for control in controls if control.acts(step, steps)]
        residuals = _summed(base, acting, noisy, times, conditions)
        prediction = base.predict(noisy, times, conditions, residuals)
        if is_guided:  # arXiv 2207.12598
            without, with_prompt = prediction.chunk(2)
            direction = with_prompt - without
            prediction = without + drawing.guidance * direction
        (latents, *_) = scheduler.step(prediction, time, latents, **options, return_dict=False)
    return base.decode(latents)


def _noise(base: BaseModel, drawing: Drawing, generators: Sequence[torch.Generator]) -> Tensor:
    """Return the noise that each image begins with, from its own generator."""
    scale = base.pipeline.vae_scale_factor
    width, height = drawing.shape
    channels = base.denoiser.config.in_channels
    shape = (1, channels, height // scale, width // scale)
    noise = []
    for generator in generators:
        one = torch.randn(shape, generator=generator)
        noise.append(one)
    together = torch.cat(noise)
    return together.to(base.device)


def _summed(
    base: BaseModel,
    controls: Sequence[Control],
    noisy: Tensor,
    times: Tensor,
    conditions: Conditions,
) -> Residuals | None:
    """Return the sum of what ControlNets add to the denoiser; None when none acts."""
    total: Residuals | None = None
    for control in controls:
        # As often as there are images, and once more for guidance.
        times_each = len(noisy) // len(control.condition)
        pictures = control.condition.repeat(times_each, 1, 1, 1)
        added = base.residuals(control.network, noisy, times, conditions, pictures)
        down = [control.scaled(residual) for residual in added.down]
        middle = control.scaled(added.middle)
        if total is not None:
            middle = total.middle + middle
            for level, other in enumerate(total.down):
                down[level] = other + down[level]
        total = Residuals(down, middle)
    return total
