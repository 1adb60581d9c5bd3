"""The CLIP: a text tower and a picture tower that agree on which caption belongs to which picture.

Contrastive training as in Radford et al. 2021 (arXiv 2103.00020), with hard negatives in every batch: scenes that
differ in one thing only, such as colours exchanged between object and background, so that attributes get bound to
things.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from pretraining.attributes import Questions
from pretraining.captions import caption
from pretraining.examples import Examples, photographic, scaled, stacked
from pretraining.machine import device
from pretraining.pictures import SIZE, draw
from pretraining.scenes import COLOURS, SHAPES, Scene, draw_monster, draw_scene, generator, held_out
from pretraining.tokenizer import MAX_LENGTH
from pretraining.training import StageSettings, fit, gradients_in_parts, gradients_of, randomness

WIDTH = 128
PHOTOS_PER_BATCH = 4
QUESTIONS_WEIGHT = 1.0
WORD_SPREAD, PLACE_SPREAD = 0.5, 0.1  # standard deviations of untrained embeddings
FAMILY = 3  # scenes that differ from each other in one thing


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return the untrained network: four layers of width 128 per tower, patches of 8 pixels."""
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": WIDTH,
    }
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {**tower, **special, "vocab_size": len(tokenizer), "max_position_embeddings": MAX_LENGTH}
    vision = {**tower, "image_size": SIZE, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def embed_texts(network: CLIPModel, ids: torch.Tensor) -> torch.Tensor:
    """Return text embeddings (batch, width), not normalised."""
    return network.text_projection(network.text_model(input_ids=ids).pooler_output)


def embed_pictures(network: CLIPModel, pictures: torch.Tensor) -> torch.Tensor:
    """Return picture embeddings (batch, width), not normalised, for pictures (batch, 3, 64, 64) in -1..1."""
    return network.visual_projection(network.vision_model(pixel_values=pictures).pooler_output)


class Learner(nn.Module):
    """A CLIP with the questions that its towers learn to answer; the questions are not exported."""

    def __init__(self, network: CLIPModel) -> None:
        """Spread untrained words far apart, so that no two of them mean the same by neglect."""
        super().__init__()
        self.clip, self.questions = network, Questions(WIDTH)
        embeddings = network.text_model.embeddings
        nn.init.normal_(embeddings.token_embedding.weight, std=WORD_SPREAD)
        nn.init.normal_(embeddings.position_embedding.weight, std=PLACE_SPREAD)


def build_learner(tokenizer: CLIPTokenizer) -> Learner:
    """Return an untrained learner."""
    return Learner(build_clip(tokenizer))


def train_text_tower(settings: StageSettings, folder: Path, tokenizer: CLIPTokenizer) -> Learner:
    """Train the text tower on captions alone: it learns to tell what each says of its scene."""
    torch.manual_seed(settings.seed)
    learner = build_learner(tokenizer).to(device())
    learner.clip.requires_grad_(requires_grad=False)
    learner.clip.text_model.requires_grad_(requires_grad=True)
    learner.clip.text_projection.requires_grad_(requires_grad=True)

    def loss(scenes: list[Scene], captions: list[str]) -> torch.Tensor:
        ids = tokens(tokenizer, captions).to(device())
        return learner.questions.loss(embed_texts(learner.clip, ids), scenes)

    def losses(step: int) -> list[Callable[[], torch.Tensor]]:
        rng = generator(settings.seed, settings.name, step)
        scenes = [draw_scene(rng) for _ in range(settings.batch)]
        captions = [caption(scene, rng) for scene in scenes]
        half = settings.batch // 2
        return [partial(loss, scenes[:half], captions[:half]), partial(loss, scenes[half:], captions[half:])]

    fit(learner, settings, gradients_in_parts(learner, losses), folder)
    return learner.cpu()


def train_picture_tower(
    settings: StageSettings, folder: Path, learner: Learner, tokenizer: CLIPTokenizer, photos: int
) -> Learner:
    """Train the picture tower to match a text tower that stays as it is (Zhai et al. 2022, arXiv 2111.07991).

    The denoiser learns from the text tower's states, so they must not change. Beside the contrast, the picture tower
    answers the same questions from its own embedding.
    """
    learner.to(device())
    learner.clip.text_model.requires_grad_(requires_grad=False)
    learner.clip.text_projection.requires_grad_(requires_grad=False)
    learner.clip.vision_model.requires_grad_(requires_grad=True)
    learner.clip.visual_projection.requires_grad_(requires_grad=True)
    learner.clip.logit_scale.requires_grad_(requires_grad=True)
    pool = photographic(settings.seed, "clip-photos", photos)

    def loss(step: int) -> torch.Tensor:
        batch, scenes = batch_of_step(settings, step, pool)
        pictures = disturbed(scaled(batch.pictures), randomness(settings, step))
        seen = embed_pictures(learner.clip, pictures.to(device()))
        with torch.no_grad():
            told = embed_texts(learner.clip, tokens(tokenizer, batch.captions).to(device()))
        contrast = contrastive_loss(told, seen, learner.clip.logit_scale)
        return contrast + QUESTIONS_WEIGHT * learner.questions.loss(seen[: len(scenes)], scenes)

    fit(learner, settings, gradients_of(loss), folder)
    return learner.cpu()


def tokens(tokenizer: CLIPTokenizer, captions: tuple[str, ...] | list[str], *, full: bool = False) -> torch.Tensor:
    """Return token ids (batch, length): as long as the longest caption, or (`full`) the length a pipeline uses."""
    padding = "max_length" if full else "longest"
    return tokenizer(
        list(captions), padding=padding, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    ).input_ids


def contrastive_loss(told: torch.Tensor, seen: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of finding the right text for each picture and the reverse."""
    logits = (
        functional.normalize(seen, dim=-1) @ functional.normalize(told, dim=-1).T * logit_scale.exp().clamp(max=100)
    )
    right = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


def batch_of_step(settings: StageSettings, step: int, pool: Examples) -> tuple[Examples, list[Scene]]:
    """Return one batch, families of much alike scenes and then a few photo crops, and the scenes."""
    rng = generator(settings.seed, settings.name, step)
    scenes: list[Scene] = []
    while len(scenes) < settings.batch - PHOTOS_PER_BATCH:
        scene = draw_scene(rng)
        scenes += [scene, *(altered(scene, rng) for _ in range(FAMILY - 1))]
    scenes = scenes[: settings.batch - PHOTOS_PER_BATCH]
    chosen = rng.sample(range(len(pool.captions)), PHOTOS_PER_BATCH)
    pictures = torch.cat([stacked([draw(scene) for scene in scenes]), pool.pictures[chosen]])
    captions = (*(caption(scene, rng) for scene in scenes), *(pool.captions[i] for i in chosen))
    return Examples(pictures, captions), scenes


def altered(scene: Scene, rng: random.Random) -> Scene:
    """Return a scene that differs in one thing, and is still one that training may see."""
    for _ in range(8):
        other = alteration(scene, rng)
        if other.colour != other.background.colour and not held_out(other.kind, other.colour, other.background.colour):
            return other
    return draw_scene(rng)


def alteration(scene: Scene, rng: random.Random) -> Scene:
    """Exchange the two colours, or change one colour, the shape or a monster's looks."""
    ground = scene.background
    kind = rng.choice(("exchange", "colour", "ground", "kind", "kind"))
    if kind == "exchange":
        return replace(scene, colour=ground.colour, background=replace(ground, colour=scene.colour))
    if kind == "colour":
        return replace(scene, colour=rng.choice(tuple(COLOURS)))
    if kind == "ground":
        return replace(scene, background=replace(ground, colour=rng.choice(tuple(COLOURS))))
    if scene.monster is not None:
        return replace(scene, monster=draw_monster(rng, scene.colour, ground.colour))
    return replace(scene, kind=rng.choice(SHAPES))


def disturbed(pictures: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Change light, contrast, place and sharpness a little; pictures (batch, 3, 64, 64) in -1..1."""
    count = len(pictures)
    light = 0.1 * torch.randn(count, 1, 1, 1, generator=source)
    contrast = 1 + 0.1 * torch.randn(count, 1, 1, 1, generator=source)
    zoom = 1 + 0.07 * torch.randn(count, generator=source)
    shift = 0.06 * torch.randn(count, 2, generator=source)
    place = torch.zeros(count, 2, 3)
    place[:, 0, 0], place[:, 1, 1], place[:, :, 2] = zoom, zoom, shift
    grid = functional.affine_grid(place, list(pictures.shape), align_corners=False)
    moved = functional.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    noise = 0.05 * torch.randn(moved.shape, generator=source)
    return (moved * contrast + light + noise).clamp(-1, 1)


@torch.no_grad()
def retrieval(network: CLIPModel, tokenizer: CLIPTokenizer, examples: Examples) -> tuple[float, float]:
    """Return how often the right text is the nearest to a picture, and the right picture to a text, among all given."""
    logits = network(
        input_ids=tokens(tokenizer, examples.captions), pixel_values=scaled(examples.pictures)
    ).logits_per_image
    right = torch.arange(len(logits))
    return (logits.argmax(1) == right).float().mean().item(), (logits.argmax(0) == right).float().mean().item()
