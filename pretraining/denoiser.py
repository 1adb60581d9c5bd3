"""The denoiser: a U-Net that predicts velocities of 16x16x8 latents, told by the text tower what to draw.

Latent diffusion (Rombach et al. 2022, arXiv 2112.10752) with velocity prediction (Salimans and Ho 2022,
arXiv 2202.00512), nearly clean latents weighing less (Hang et al. 2023, arXiv 2303.09556).
Latents and text states are computed once; a step only chooses, adds noise and predicts.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from pretraining.autoencoder import CHANNELS, encoded
from pretraining.captions import caption
from pretraining.clip import WIDTH, tokens
from pretraining.examples import drawn_scenes, photographic, stacked
from pretraining.machine import autocast, device
from pretraining.pictures import draw
from pretraining.scenes import HARD_MIX, generator
from pretraining.schedule import noise_schedule
from pretraining.training import StageSettings, fit, gradients_in_parts, randomness

log = logging.getLogger(__name__)

CAPTION_DROPOUT = 0.1
CAPTIONS_EACH = 2
CHUNK = 512
ENCODE_BATCH = 128
PARTS = 2  # of a batch, each with its own thread
SNR_LIMIT = 5.0


def build_denoiser() -> UNet2DConditionModel:
    """Return the untrained network: attention at every resolution, most of its compute below 16x16."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(64, 128, 256),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=(2, 2, 4),  # numbers of heads, whatever diffusers calls them
        norm_num_groups=16,
    )


@dataclass(frozen=True)
class Conditioned:
    """What a step draws from, all float16.

    `latents` (count, 8, 16, 16) are scaled; `states` (count * captions each, 32, 128) are the text tower's;
    `silence` (1, 32, 128) is its state for the empty prompt. `emphasis` (count, 1, 16, 16) says how much an error at a
    place of a latent counts; the same everywhere without it.
    """

    latents: torch.Tensor
    states: torch.Tensor
    silence: torch.Tensor
    emphasis: torch.Tensor | None = None


class Batch(NamedTuple):
    """What a step learns from; float32, the first dimension is that of the samples."""

    latents: torch.Tensor
    states: torch.Tensor
    emphasis: torch.Tensor


def train_denoiser(
    settings: StageSettings,
    folder: Path,
    examples: Conditioned,
    on_save: Callable[[dict[str, torch.Tensor]], None] | None = None,
) -> UNet2DConditionModel:
    """Train on prepared latents and text states; return the averaged network."""
    torch.manual_seed(settings.seed)
    network = build_denoiser().to(device())
    schedule = noise_schedule()

    def losses(step: int) -> list[Callable[[], torch.Tensor]]:
        source = randomness(settings, step)
        return velocity_losses(network, schedule, batch_of(examples, settings.batch, source), source)

    fit(network, settings, gradients_in_parts(network, losses), folder, on_save)
    return network.cpu()


def batch_of(examples: Conditioned, count: int, source: torch.Generator) -> Batch:
    """Return latents and the states of one of their captions each, a tenth silenced for classifier-free guidance."""
    chosen = torch.randint(len(examples.latents), (count,), generator=source)
    which = torch.randint(CAPTIONS_EACH, (count,), generator=source)
    states = examples.states[chosen * CAPTIONS_EACH + which].float()
    silent = torch.rand(count, generator=source) < CAPTION_DROPOUT
    states[silent] = examples.silence.float()
    emphasis = torch.ones(count, 1, 1, 1) if examples.emphasis is None else examples.emphasis[chosen].float()
    return Batch(examples.latents[chosen].float(), states, emphasis)


def velocity_losses(
    network: UNet2DConditionModel,
    schedule: DDIMScheduler,
    batch: Batch,
    source: torch.Generator,
) -> list[Callable[[], torch.Tensor]]:
    """Return, for each part of the batch, what computes the weighted squared error of its predicted velocities.

    Times are random, one stratum of the schedule per sample, so that every batch sees all of it.
    """
    latents = batch.latents
    count, last = len(latents), schedule.config.num_train_timesteps
    order = torch.randperm(count, generator=source)
    times = ((order + torch.rand(count, generator=source)) / count * last).long().clamp(max=last - 1)
    noise = torch.randn(latents.shape, generator=source)
    noisy, target = schedule.add_noise(latents, noise, times), schedule.get_velocity(latents, noise, times)
    weights = velocity_weights(schedule)[times][:, None, None, None] * batch.emphasis

    def loss(part: slice) -> torch.Tensor:
        inputs = (noisy[part], times[part], batch.states[part], target[part], weights[part])
        noisy_part, times_part, states_part, target_part, weights_part = (value.to(device()) for value in inputs)
        with autocast():
            velocity = network(noisy_part, times_part, states_part).sample
        return (weights_part * (velocity.float() - target_part).square()).mean()

    size = count // PARTS
    return [partial(loss, slice(first, first + size)) for first in range(0, count, size)]


def velocity_weights(schedule: DDIMScheduler) -> torch.Tensor:
    """Return the weight of each time of the schedule: 1 up to a signal-to-noise ratio of `SNR_LIMIT`, then falling.

    One is added to the ratios because a velocity is predicted, which also keeps the last time, of ratio 0, at weight 1.
    """
    alpha_bar = schedule.alphas_cumprod
    ratio = alpha_bar / (1 - alpha_bar)
    return (ratio.clamp(max=SNR_LIMIT) + 1) / (ratio + 1)


def prepare(
    seed: int,
    counts: tuple[int, int],
    folder: Path,
    tower: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    autoencoder: AutoencoderKL,
) -> Conditioned:
    """Draw and encode `counts` (drawn pictures, photo crops), or read what an earlier call left in the folder."""
    path = folder / "conditioned.safetensors"
    if not path.exists():
        texts = captions_of(seed, *counts)
        latents = torch.cat([*drawn_latents(seed, counts[0], autoencoder), photo_latents(seed, counts[1], autoencoder)])
        tensors = {
            "latents": (latents * autoencoder.config.scaling_factor).half(),
            "states": text_states(tower, tokenizer, texts),
            "silence": text_states(tower, tokenizer, [""]),
        }
        save_file(tensors, path)
    return Conditioned(**load_file(path))


def captions_of(seed: int, drawn: int, photos: int) -> list[str]:
    """Return `CAPTIONS_EACH` captions per picture, in the pictures' order, every second one telling."""
    texts = []
    for index, scene in enumerate(drawn_scenes(seed, "denoiser", drawn, HARD_MIX)):
        for k in range(CAPTIONS_EACH):
            rng = generator(seed, "denoiser", index, "caption", k)
            texts.append(caption(scene, rng, telling=k % 2 == 1))
    for text in photographic(seed, "denoiser-photos", photos).captions:
        texts += [text] * CAPTIONS_EACH
    return texts


def drawn_latents(seed: int, count: int, autoencoder: AutoencoderKL) -> list[torch.Tensor]:
    """Return unscaled latents of the drawn pictures, chunk by chunk so that pictures need no room."""
    scenes = list(drawn_scenes(seed, "denoiser", count, HARD_MIX))
    chunks = []
    for first in range(0, count, CHUNK):
        chunks.append(encoded(autoencoder, stacked([draw(scene) for scene in scenes[first : first + CHUNK]])))
        log.info("encoded %d of %d pictures", first + len(chunks[-1]), count)
    return chunks


def photo_latents(seed: int, count: int, autoencoder: AutoencoderKL) -> torch.Tensor:
    """Return unscaled latents of the photo crops."""
    return encoded(autoencoder, photographic(seed, "denoiser-photos", count).pictures)


@torch.no_grad()
def text_states(tower: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Return the tower's last hidden states (count, 32, 128) as StableDiffusionPipeline computes them, float16."""
    tower.eval()
    ids = tokens(tokenizer, captions, full=True)
    return torch.cat([tower(input_ids=batch).last_hidden_state.half() for batch in ids.split(ENCODE_BATCH)])
