"""The model card: `card.md` with what was measured filled in."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pretraining.evaluation import GUIDANCE, SAMPLING_STEPS, Figures, as_record
from pretraining.scenes import COLOURS, HELD_OUT_ONE_IN, PATTERNS, SHAPES
from pretraining.stages import Stages
from pretraining.training import Progress

SHEET_PROMPTS = (
    "a photo of a red circle on a blue background",
    "a large green star on a dotted yellow background",
    "a picture of a purple heart on a striped white background",
    "a yellow ring",
    "a small black triangle on a pink background",
    "white diamond, checkered red background",
    "an orange cross on a gradient purple background",
    "a blue square on the left on a white background",
    "a photo of a monster",
    "a purple monster with two orange horns on a striped green background",
    "a green monster with one eye and arms up on a pink background",
    "a white monster with red spots on a blue background",
    "a large yellow monster with three eyes",
    "a photo of a red monster with black stripes on a white background",
    "a photo of sks monster on a red background",
    "a small pink monster with two ears at the bottom on a black background",
)

TEMPLATE = Path(__file__).with_name("card.md")
FIRST_MODEL = Path(__file__).with_name("first_model.json")
"""What the same command measured on the first edition of this model, which had a narrower denoiser and 4 channels."""
SHARES = (
    "following",
    "kind",
    "colour",
    "background",
    "following_small",
    "monster_colour",
    "monster_background",
    "monster_eyes",
    "monster_top",
    "eyes_after_autoencoder",
    "judge_following",
    "judge_small",
    "judge_eyes",
    "judge_top",
    "picture_to_text",
    "text_to_picture",
)


def write_card(folder: Path, figures: Figures, stages: Stages) -> None:
    """Write the base model's README.md from what was measured."""
    now = in_words(as_record(figures))
    first = in_words(json.loads(FIRST_MODEL.read_text(encoding="utf-8")))
    progress = stages.progress()
    text = TEMPLATE.read_text(encoding="utf-8").format(
        now=now,
        first=first,
        sheet="; ".join(f"*{prompt}*" for prompt in SHEET_PROMPTS),
        steps=SAMPLING_STEPS,
        guidance=GUIDANCE,
        megabytes=figures.weight_bytes / 1e6,
        one_in=HELD_OUT_ONE_IN,
        table=stage_table(stages, progress, figures.parameters),
        seed=stages.seed,
        machines="; ".join(machines(progress)),
        shapes=", ".join(SHAPES),
        colours=", ".join(COLOURS),
        patterns=", ".join(PATTERNS),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def in_words(record: Mapping[str, Any]) -> SimpleNamespace:
    """Return a record of figures as text, by the same names; Any because it may come from JSON."""
    words = {}
    for name, value in record.items():
        if value is None:
            words[name] = "not measured"
        elif name in SHARES:
            words[name] = f"{value:.1%}"
        elif name.startswith("psnr_"):
            words[name] = f"{value:.1f} dB"
        else:
            words[name] = str(value)
    return SimpleNamespace(**words)


def machines(progress: Mapping[str, Progress]) -> list[str]:
    """Return the names of all machines that trained a stage."""
    names: set[str] = set()
    for one in progress.values():
        names.update(one.machines)
    return sorted(names)


def stage_table(stages: Stages, progress: Mapping[str, Progress], parameters: Mapping[str, int]) -> str:
    """Return the table's rows: one per trained part."""
    scale = stages.scale
    rows = (
        (
            scale.autoencoder,
            "`vae/`",
            "AutoencoderKL (32, 64, 128), f=4, 16x16x8 latents",
            parameters["vae"],
            f"{scale.diet:,} pictures, crops of 32x32",
        ),
        (
            scale.text_tower,
            "`clip/`, `text_encoder/`",
            "CLIPModel, 4+4 layers of width 128",
            parameters["clip"],
            "pictures drawn anew each step",
        ),
        (
            scale.picture_tower,
            "`clip/`, picture tower only",
            "the same, text tower frozen",
            parameters["clip"] - parameters["text_encoder"],
            "the same",
        ),
        (
            scale.denoiser,
            "`unet/`",
            "UNet2DConditionModel (64, 128, 256)",
            parameters["unet"],
            f"{scale.drawn:,} drawn pictures, {scale.photos:,} photo crops",
        ),
        (
            scale.lessons,
            "`unet/`, its last lessons",
            "the same",
            parameters["unet"],
            f"{scale.taught:,} monsters whose captions name what grows on their heads; a quarter of the former",
        ),
    )
    lines = []
    for settings, part, kind, count, diet in rows:
        minutes = "kept"
        if settings.name in progress:
            minutes = f"{progress[settings.name].seconds / 60:.0f}"
        lines.append(f"| {part} | {kind} | {count:,} | {diet} | {settings.steps:,} x {settings.batch} | {minutes} |")
    return "\n".join(lines)
