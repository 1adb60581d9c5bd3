"""The denoiser's last lessons: monsters whose captions always name what grows on their heads.

What it was told of a monster's horns, ears or antennae it ignored after the first diet, although the text states tell
them apart: they cover a twenty-fifth of a picture, and half of the captions do not name them. Here the captions name
them always, and an error counts more where they are: where the picture differs from that of the same monster without
them.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from pretraining.autoencoder import encoded
from pretraining.captions import lesson
from pretraining.denoiser import CAPTIONS_EACH, CHUNK, Batch, Conditioned, batch_of, text_states, velocity_losses
from pretraining.examples import drawn_scenes, stacked
from pretraining.machine import device
from pretraining.pictures import draw
from pretraining.scenes import Mix, Scene, generator
from pretraining.schedule import noise_schedule
from pretraining.training import StageSettings, fit, gradients_in_parts, randomness

log = logging.getLogger(__name__)

MIX = Mix(monsters=1.0, shape_sizes=(1, 1, 1), monster_sizes=(1, 2, 2))
REPEATED_SHARE = 0.25
"""Of each batch, from the first diet, so that nothing of it is forgotten."""
EMPHASIS = 0.5
"""How much errors on a head count beside those of the whole picture, however little grows there."""
SEEN_DIFFERENCE = 24
"""Of 255: a pixel that differs more shows what grows on the head."""
FACTOR = 4
"""Pixels of a picture along one side of a latent's place."""


def train_lessons(
    network: UNet2DConditionModel,
    settings: StageSettings,
    folder: Path,
    examples: tuple[Conditioned, Conditioned],
    on_save: Callable[[dict[str, torch.Tensor]], None] | None = None,
) -> UNet2DConditionModel:
    """Train on the lessons and some of the first diet, in this order in `examples`; return the averaged network."""
    lessons, first_diet = examples
    repeated = int(settings.batch * REPEATED_SHARE)
    network.to(device())
    schedule = noise_schedule()

    def losses(step: int) -> list[Callable[[], torch.Tensor]]:
        source = randomness(settings, step)
        learned = batch_of(lessons, settings.batch - repeated, source)
        batch = joined(learned, batch_of(first_diet, repeated, source))
        return velocity_losses(network, schedule, batch, source)

    fit(network, settings, gradients_in_parts(network, losses), folder, on_save)
    return network.cpu()


def joined(first: Batch, second: Batch) -> Batch:
    """Return two batches as one."""
    emphasis = torch.cat([first.emphasis, second.emphasis.expand(-1, *first.emphasis.shape[1:])])
    return Batch(torch.cat([first.latents, second.latents]), torch.cat([first.states, second.states]), emphasis)


def prepare_lessons(
    seed: int, count: int, folder: Path, tower: CLIPTextModel, tokenizer: CLIPTokenizer, autoencoder: AutoencoderKL
) -> Conditioned:
    """Draw and encode `count` monsters, or read what an earlier call left in the folder."""
    path = folder / "lessons-conditioned.safetensors"
    if not path.exists():
        scenes = list(drawn_scenes(seed, "lessons", count, MIX))
        texts = []
        for index in range(count):
            for k in range(CAPTIONS_EACH):
                texts.append(lesson(scenes[index], generator(seed, "lessons", index, "caption", k)))
        latents, emphasis = [], []
        for first in range(0, count, CHUNK):
            some = scenes[first : first + CHUNK]
            latents.append(encoded(autoencoder, stacked([draw(scene) for scene in some])))
            emphasis.append(emphasis_of(some))
            log.info("encoded %d of %d lessons", first + len(some), count)
        tensors = {
            "latents": (torch.cat(latents) * autoencoder.config.scaling_factor).half(),
            "states": text_states(tower, tokenizer, texts),
            "silence": text_states(tower, tokenizer, [""]),
            "emphasis": torch.cat(emphasis).half(),
        }
        save_file(tensors, path)
    return Conditioned(**load_file(path))


def emphasis_of(scenes: list[Scene]) -> torch.Tensor:
    """Return what an error counts at each place of the latents, (count, 1, 16, 16): 1, and more where something grows.

    What grows has the same share of a loss whether it is one horn or three.
    """
    pictures = stacked([draw(scene) for scene in scenes]).float()
    without = stacked([draw(bald(scene)) for scene in scenes]).float()
    seen = (pictures - without).abs().amax(1, keepdim=True) > SEEN_DIFFERENCE
    grown = functional.max_pool2d(seen.float(), FACTOR)
    share = grown.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)  # a bald head has none
    return 1 + EMPHASIS * grown / share


def bald(scene: Scene) -> Scene:
    """Return the scene with nothing on the monster's head."""
    if scene.monster is None:
        return scene
    return replace(scene, monster=replace(scene.monster, top="bald"))
