"""Measures the exported base model as a user meets it: through plain diffusers and transformers, from its folder."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageOps
from transformers import CLIPModel

from pretraining.autoencoder import encoded
from pretraining.captions import full_prompt, monster_prompt
from pretraining.clip import retrieval
from pretraining.examples import Examples, stacked, unscaled
from pretraining.judge import Judge, verdicts
from pretraining.pictures import SIZE, draw
from pretraining.scenes import MONSTER, Scene, draw_background, generator, held_out_combinations, place

log = logging.getLogger(__name__)

SAMPLING_STEPS = 12
GUIDANCE = 4.0
SAMPLING_BATCH = 32
RETRIEVAL_PAIRS = 64
RETRIEVAL_ROUNDS = 8


@dataclass(frozen=True)
class Figures:
    """What was measured; shares from 0 to 1, PSNR in dB. A `judge_` figure is the judge's own on drawn pictures."""

    prompts: int
    following: float
    kind: float
    colour: float
    background: float
    judge_following: float
    small_prompts: int
    following_small: float
    judge_small: float
    monster_prompts: int
    monster_colour: float
    monster_background: float
    monster_eyes: float
    judge_eyes: float
    monster_top: float
    judge_top: float
    eyes_after_autoencoder: float
    picture_to_text: float
    text_to_picture: float
    psnr_photos: float | None
    psnr_drawn: float
    weight_bytes: int
    parameters: dict[str, int]


def evaluate(
    folder: Path,
    judge: Judge,
    photos: Path | None,
    prompts: int,
    *,
    steps: int = SAMPLING_STEPS,
    seed: int = 1,
) -> Figures:
    """Measure everything that the model card states, on pictures drawn in `steps` steps."""
    pipe = load_pipeline(folder)
    clip = CLIPModel.from_pretrained(folder / "clip").eval()
    scenes, texts = unseen_prompts(prompts, seed)
    right = verdicts(judge, sampled(pipe, texts, seed, steps), scenes)
    drawn = verdicts(judge, pictures_of(scenes), scenes)
    small, small_texts = small_prompts(prompts, seed)
    right_small = verdicts(judge, sampled(pipe, small_texts, seed, steps), small)
    drawn_small = verdicts(judge, pictures_of(small), small)
    monsters, monster_texts = monster_prompts(prompts, seed)
    right_monsters = verdicts(judge, sampled(pipe, monster_texts, seed, steps), monsters)
    drawn_monsters = verdicts(judge, pictures_of(monsters), monsters)
    restored_monsters = verdicts(judge, restored(pipe, pictures_of(monsters)), monsters)
    to_text, to_picture = mean_retrieval(clip, pipe, seed)
    return Figures(
        prompts=prompts,
        following=following(right),
        kind=share(right["kind"]),
        colour=share(right["colour"]),
        background=share(right["ground"]),
        judge_following=following(drawn),
        small_prompts=len(small),
        following_small=following(right_small),
        judge_small=following(drawn_small),
        monster_prompts=len(monsters),
        monster_colour=share(right_monsters["colour"]),
        monster_background=share(right_monsters["ground"]),
        monster_eyes=share(right_monsters["eyes"]),
        judge_eyes=share(drawn_monsters["eyes"]),
        monster_top=share(right_monsters["top"]),
        judge_top=share(drawn_monsters["top"]),
        eyes_after_autoencoder=share(restored_monsters["eyes"]),
        picture_to_text=to_text,
        text_to_picture=to_picture,
        psnr_photos=psnr(pipe, photo_pictures(photos)) if photos else None,
        psnr_drawn=psnr(pipe, pictures_of(scenes[:64])),
        weight_bytes=sum(path.stat().st_size for path in folder.rglob("*.safetensors")),
        parameters=parameter_counts(pipe, clip),
    )


def following(right: dict[str, torch.Tensor]) -> float:
    """Return the share of pictures with both the right shape and the right colour."""
    return share(right["kind"] & right["colour"])


def pictures_of(scenes: list[Scene]) -> torch.Tensor:
    """Return the scenes' drawn pictures (count, 3, 64, 64) as uint8."""
    return stacked([draw(scene) for scene in scenes])


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Load the folder with plain diffusers, quietly."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def small_prompts(count: int, seed: int) -> tuple[list[Scene], list[str]]:
    """Return those of `count` unseen scenes that show a small object, and prompts that say so."""
    scenes, texts = unseen_prompts(count, seed, sized=True)
    small = [index for index, scene in enumerate(scenes) if scene.size == "small"]
    return [scenes[index] for index in small], [texts[index] for index in small]


def monster_prompts(count: int, seed: int) -> tuple[list[Scene], list[str]]:
    """Return scenes of unseen monsters with something on their heads, and prompts that name it and the eyes."""
    combinations = [triple for triple in held_out_combinations() if triple[0] == MONSTER]
    scenes: list[Scene] = []
    texts: list[str] = []
    number = 0
    while len(scenes) < count:
        kind, colour, ground = combinations[len(scenes) % len(combinations)]
        rng = generator(seed, "monster", number)
        number += 1
        scene = place(rng, kind, colour, draw_background(rng, ground))
        if scene.monster is not None and scene.monster.top != "bald":
            scenes.append(scene)
            texts.append(monster_prompt(scene, rng))
    return scenes, texts


def unseen_prompts(count: int, seed: int, *, sized: bool = False) -> tuple[list[Scene], list[str]]:
    """Return scenes of held-out combinations, each of them used about equally often, and a full prompt for each."""
    combinations = held_out_combinations()
    scenes, texts = [], []
    while len(scenes) < count:
        kind, colour, ground = combinations[len(scenes) % len(combinations)]
        rng = generator(seed, "prompt", len(scenes))
        scenes.append(place(rng, kind, colour, draw_background(rng, ground)))
        texts.append(full_prompt(scenes[-1], rng, sized=sized))
    return scenes, texts


def sampled(pipe: StableDiffusionPipeline, prompts: list[str], seed: int, steps: int = SAMPLING_STEPS) -> torch.Tensor:
    """Return one uint8 picture per prompt (count, 3, 64, 64); picture k depends on `(seed, k)` and its prompt only."""
    pictures: list[Image.Image] = []
    for first in range(0, len(prompts), SAMPLING_BATCH):
        batch = prompts[first : first + SAMPLING_BATCH]
        sources = [torch.Generator().manual_seed(seed * 100_003 + first + k) for k in range(len(batch))]
        pictures += pipe(batch, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=sources).images
        log.info("sampled %d of %d pictures", len(pictures), len(prompts))
    return stacked(pictures)


def mean_retrieval(clip: CLIPModel, pipe: StableDiffusionPipeline, seed: int) -> tuple[float, float]:
    """Return top-1 retrieval among 64 unseen pairs of different combinations, both ways, averaged over some rounds."""
    rounds = []
    combinations = len(held_out_combinations())
    scenes, texts = unseen_prompts(combinations * RETRIEVAL_ROUNDS, seed + 1, sized=True)
    for number in range(RETRIEVAL_ROUNDS):
        among = generator(seed, "retrieval", number).sample(range(combinations), RETRIEVAL_PAIRS)
        chosen = [number * combinations + k for k in among]
        pictures = pictures_of([scenes[i] for i in chosen])
        rounds.append(retrieval(clip, pipe.tokenizer, Examples(pictures, tuple(texts[i] for i in chosen))))
    to_text, to_picture = torch.tensor(rounds).mean(0).tolist()
    return to_text, to_picture


def photo_pictures(folder: Path) -> torch.Tensor:
    """Return a folder's photographs, cut to squares and reduced to 64x64, as uint8."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpeg", ".jpg", ".png"})
    photos = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths]
    return stacked([ImageOps.fit(photo, (SIZE, SIZE), Image.Resampling.LANCZOS) for photo in photos])


@torch.no_grad()
def restored(pipe: StableDiffusionPipeline, pictures: torch.Tensor) -> torch.Tensor:
    """Return uint8 pictures after a round trip through the autoencoder."""
    parts = [unscaled(pipe.vae.decode(latents).sample) for latents in encoded(pipe.vae, pictures).split(SAMPLING_BATCH)]
    return torch.cat(parts)


def psnr(pipe: StableDiffusionPipeline, pictures: torch.Tensor) -> float:
    """Return the mean peak signal-to-noise ratio (dB) of uint8 pictures after the autoencoder."""
    errors = (restored(pipe, pictures).float() - pictures.float()).square().mean((1, 2, 3))
    return (10 * torch.log10(255**2 / errors)).mean().item()


def parameter_counts(pipe: StableDiffusionPipeline, clip: CLIPModel) -> dict[str, int]:
    """Return the number of parameters of each network."""
    networks = {"unet": pipe.unet, "vae": pipe.vae, "text_encoder": pipe.text_encoder, "clip": clip}
    return {name: sum(value.numel() for value in network.parameters()) for name, network in networks.items()}


def share(right: torch.Tensor) -> float:
    """Return the share of true values."""
    return right.float().mean().item()


def grid(pipe: StableDiffusionPipeline, prompts: list[str], columns: int, seed: int = 7) -> Image.Image:
    """Return a sheet of one picture per prompt, row by row."""
    pictures = sampled(pipe, prompts, seed)
    rows = -(-len(prompts) // columns)
    sheet = Image.new("RGB", (columns * (SIZE + 2) - 2, rows * (SIZE + 2) - 2), (255, 255, 255))
    for index, picture in enumerate(pictures):
        tile = Image.fromarray(picture.permute(1, 2, 0).numpy())
        sheet.paste(tile, (index % columns * (SIZE + 2), index // columns * (SIZE + 2)))
    return sheet


def as_record(figures: Figures) -> dict[str, object]:
    """Return the figures as plain values for JSON."""
    return asdict(figures)
