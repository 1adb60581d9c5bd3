"""The model card: `card.md` with what was measured filled in."""

from pathlib import Path

from pretraining.evaluation import GUIDANCE, SAMPLING_STEPS, Figures
from pretraining.scenes import COLOURS, HELD_OUT_ONE_IN, PATTERNS, SHAPES
from pretraining.stages import Scale, Stages

MACHINE = (
    "2 cores of an Intel Xeon with AVX-512 (autoencoder and text tower: of an AMD EPYC, Zen 1, in an earlier run whose "
    "exported weights the later stages read), no GPU, shared with other work"
)

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


def write_card(folder: Path, figures: Figures, stages: Stages) -> None:
    """Write the base model's README.md from what was measured."""
    values = vars(figures) | {
        "psnr_photos": "not measured" if figures.psnr_photos is None else f"{figures.psnr_photos:.1f} dB"
    }
    text = TEMPLATE.read_text(encoding="utf-8").format(
        **values,
        sheet="; ".join(f"*{prompt}*" for prompt in SHEET_PROMPTS),
        steps=SAMPLING_STEPS,
        guidance=GUIDANCE,
        megabytes=figures.weight_bytes / 1e6,
        one_in=HELD_OUT_ONE_IN,
        table=stage_table(stages.scale, stages.seconds(), figures.parameters),
        seed=stages.seed,
        machine=MACHINE,
        shapes=", ".join(SHAPES),
        colours=", ".join(COLOURS),
        patterns=", ".join(PATTERNS),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def stage_table(scale: Scale, seconds: dict[str, float], parameters: dict[str, int]) -> str:
    """Return the table's rows: one per trained part."""
    rows = (
        (
            scale.autoencoder,
            "`vae/`",
            "AutoencoderKL, f=4, 16x16x4 latents",
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
            "UNet2DConditionModel (32, 64, 128)",
            parameters["unet"],
            f"{scale.drawn:,} drawn pictures, {scale.photos:,} photo crops",
        ),
    )
    lines = []
    for settings, part, kind, count, diet in rows:
        minutes = f"{seconds[settings.name] / 60:.0f}" if settings.name in seconds else "-"
        lines.append(f"| {part} | {kind} | {count:,} | {diet} | {settings.steps:,} x {settings.batch} | {minutes} |")
    return "\n".join(lines)
