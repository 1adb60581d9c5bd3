"""`python -m pretraining STAGE`: makes the built-in base model from nothing, or one stage of it."""

import argparse
import json
import logging
from pathlib import Path

import torch

from orchestrator.resources import ASSETS
from pretraining.card import SHEET_PROMPTS, write_card
from pretraining.evaluation import SAMPLING_STEPS, as_record, evaluate, grid, load_pipeline
from pretraining.layouts import write_layouts
from pretraining.stages import QUICK, Scale, Stages
from pretraining.style import write_style
from pretraining.subject import write_subject
from pretraining.tokenizer import write_json

STAGES = (
    "subject",
    "style",
    "layouts",
    "autoencoder",
    "text-tower",
    "denoiser",
    "lessons",
    "picture-tower",
    "judge",
    "export",
    "evaluate",
    "all",
)


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    grammar = argparse.ArgumentParser(prog="python -m pretraining", description=__doc__)
    grammar.add_argument("stage", choices=STAGES, help="what to make; a stage makes what it needs first")
    grammar.add_argument(
        "--work", type=Path, default=Path("build/pretraining"), help="folder for states and intermediate data"
    )
    grammar.add_argument("--assets", type=Path, default=ASSETS, help="folder that gets base_model/ and sample/")
    grammar.add_argument("--seed", type=int, default=0, help="seed of everything")
    grammar.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves its own choice")
    grammar.add_argument(
        "--photos", type=Path, help="folder of photographs for the autoencoder's PSNR; without it, none is stated"
    )
    grammar.add_argument(
        "--keep-clip", action="store_true", help="use both towers of the CLIP in --assets instead of training them"
    )
    grammar.add_argument(
        "--base-model", type=Path, help="with evaluate: measure this folder, and write its figures and no card"
    )
    grammar.add_argument("--prompts", type=int, default=320, help="how many unseen prompts to evaluate")
    grammar.add_argument("--steps", type=int, default=SAMPLING_STEPS, help="denoising steps of the pictures to judge")
    grammar.add_argument(
        "--quick", action="store_true", help="shrink all stages to seconds, to see that they fit together"
    )
    return grammar


def main(arguments: list[str] | None = None) -> None:
    """Run one stage."""
    wanted = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    base_model = wanted.assets / "base_model"
    kept_clip = base_model / "clip" if wanted.keep_clip else None
    stages = Stages(wanted.work, QUICK if wanted.quick else Scale(), wanted.seed, kept_clip)
    if wanted.stage in {"subject", "all"}:
        write_subject(wanted.assets / "sample")
    if wanted.stage in {"style", "all"}:
        write_style(wanted.assets / "style")
    if wanted.stage in {"layouts", "all"}:
        write_layouts(wanted.assets / "layouts")
    if wanted.stage in {"export", "all"}:
        stages.export(base_model)
    if wanted.stage in {"evaluate", "all"}:
        measure(stages, base_model, wanted)
    if wanted.stage == "denoiser":
        stages.denoiser(base_model)
    elif wanted.stage == "lessons":
        stages.lessons(base_model)
    elif wanted.stage in {"autoencoder", "text-tower", "picture-tower", "judge"}:
        getattr(stages, wanted.stage.replace("-", "_"))()


def measure(stages: Stages, base_model: Path, wanted: argparse.Namespace) -> None:
    """Evaluate a base model, print the figures as JSON, and write the model card and the sheet of the exported one."""
    folder = wanted.base_model or base_model
    figures = evaluate(folder, stages.judge(), wanted.photos, wanted.prompts, steps=wanted.steps)
    print(json.dumps(as_record(figures), indent=1))
    if wanted.base_model is not None:
        write_json(stages.work / f"figures-{folder.name}.json", as_record(figures))
        return
    write_json(stages.work / "figures.json", as_record(figures))
    sheet = grid(load_pipeline(base_model), list(SHEET_PROMPTS), columns=8)
    sheet.quantize(200).save(base_model / "samples.png", optimize=True)
    write_card(base_model, figures, stages)


if __name__ == "__main__":
    main()
