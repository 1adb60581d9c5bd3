"""DreamBooth with LoRA beside the example script of diffusers: the same libraries, model, pictures and steps.

The script is no part of this repository. Fetch `train_dreambooth_lora.py` of the installed diffusers from the address
below. It needs torchvision too: `--python` names the Python of an environment that has it beside the libraries of this
one. Linux only. Run from the repository's root: python -m benchmarks.beside_diffusers --script PATH
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

from PIL import Image, ImageChops

from benchmarks.process_tree import Usage, measure
from benchmarks.report import write_section
from orchestrator.contract.events import Step, parse

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "orchestrator" / "assets"
ADDRESS = "https://github.com/huggingface/diffusers/blob/v{}/examples/dreambooth/train_dreambooth_lora.py"
STEPS, BATCH, RANK, SIZE = 150, 4, 8, 64
CLASS_IMAGES = 32
SCRIPT_STEPS, SCRIPT_GUIDANCE = 50, 7.5
"""How the script draws class pictures: it has no option for either."""
PROMPT, CLASS_PROMPT = "a photo of sks monster", "a photo of a monster"
OURS, THEIRS = "orchestrator", "diffusers' script"
VARIABLES = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
"""One thread, and modules compiled once and not in each run, whatever is set here."""


class Figures(NamedTuple):
    """What one run took."""

    cpu_seconds: float
    wall_seconds: float
    first_step: float
    """Seconds from the start of the command to the end of the first training step."""
    peak_bytes: int


class Case(NamedTuple):
    """What both sides train on, and how."""

    name: str
    pictures: str
    """Folder in the folder of the benchmark."""
    prior: bool = False
    """With class pictures, which both draw."""
    by_default: bool = False
    """Ours with its own settings instead, evaluation included; the script has nothing of the kind to run beside."""


CASES = [
    Case("photos of a camera", "photos"),
    Case("prepared pictures", "prepared"),
    Case("prepared, class pictures", "prepared", prior=True),
    Case("prepared, our defaults", "prepared", by_default=True),
]


def make_pictures(folder: Path) -> None:
    """Make the sample subject's pictures at the size of training, and as a camera of 6 megapixels would take them."""
    for case in CASES:
        (folder / case.pictures).mkdir(exist_ok=True)
    for path in sorted((ASSETS / "sample").glob("*.png")):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(folder / "prepared" / path.name)
        photo = picture.resize((3000, 2000), Image.Resampling.BICUBIC)
        noise = Image.effect_noise(photo.size, 8).convert("RGB")  # around 128; a smooth JPEG would be small
        noisy = ImageChops.add(photo, noise, offset=-128)
        noisy.save(folder / "photos" / f"{path.stem}.jpg", quality=92)


def run_ours(case: Case, pictures: Path, base_model: Path | None) -> Figures:
    """Submit to a new home, so that nothing is known from an earlier run, and wait for the job."""
    words = [sys.executable, "-m", "orchestrator", "submit", "dreambooth", "--name", "subject"]
    words += ["--images", str(pictures), "--prompt", PROMPT]
    if base_model is not None:
        words += ["--base-model", str(base_model)]
    if not case.by_default:
        for name, value in _settings(case).items():
            words += ["-s", f"{name}={value}"]
    with tempfile.TemporaryDirectory() as home:
        variables = {**VARIABLES, "ORCHESTRATOR_HOME": home, "PYTHONPATH": str(ROOT)}
        usage = measure(words, variables, Path(home))
        _require_success(usage)
        (log,) = Path(home).glob("jobs/*/log.txt")
        first_step = _first_step(log) - usage.began
    return Figures(usage.cpu_seconds, usage.wall_seconds, first_step, usage.peak_bytes)


def _settings(case: Case) -> dict[str, object]:
    settings: dict[str, object] = {
        "steps": STEPS,
        "batch_size": BATCH,
        "rank": RANK,
        "targets": "attention",  # the script has no other
        "lr_schedule": "constant",
        "resolution": SIZE,
        "evaluation_prompts": 0,
        "prior_preservation": case.prior,
    }
    if case.prior:
        settings |= {
            "class_prompt": CLASS_PROMPT,
            "class_images": CLASS_IMAGES,
            "inference_steps": SCRIPT_STEPS,
            "guidance_scale": SCRIPT_GUIDANCE,
        }
    return settings


def _first_step(log: Path) -> float:
    """Return when a job's first step was done, in seconds since 1970."""
    for line in log.read_text(encoding="utf-8").splitlines():
        event = parse(line)
        if isinstance(event, Step) and event.at is not None:
            return event.at.timestamp()
    raise SystemExit(f"{log} tells of no step.")


def run_theirs(case: Case, pictures: Path, base_model: Path | None, python: str, script: Path) -> Figures:
    """Run the script in a new folder; its first step is done when its progress bar says so."""
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, object] = {
            "pretrained_model_name_or_path": base_model or ASSETS / "base_model",
            "instance_data_dir": pictures,
            "instance_prompt": PROMPT,
            "output_dir": folder,
            "resolution": SIZE,
            "train_batch_size": BATCH,
            "rank": RANK,
            "max_train_steps": STEPS,
            "seed": 0,
        }
        flags = []
        if case.prior:
            flags = ["--with_prior_preservation"]
            options |= {
                "class_data_dir": Path(folder) / "class",
                "class_prompt": CLASS_PROMPT,
                "num_class_images": CLASS_IMAGES,
            }
        words = [python, str(script), *flags]
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        usage = measure(words, VARIABLES, Path(folder), mark=f" 1/{STEPS} ".encode())
    _require_success(usage)
    if usage.marked is None:
        raise SystemExit("The script printed no progress.")
    return Figures(usage.cpu_seconds, usage.wall_seconds, usage.marked, usage.peak_bytes)


def _require_success(usage: Usage) -> None:
    if usage.exit_code != 0:
        raise SystemExit(usage.output.decode(errors="replace"))


def main(words: Sequence[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--script", type=Path, help="diffusers' train_dreambooth_lora.py")
    parser.add_argument("--python", default=sys.executable, help="runs the script; by default the Python of this")
    parser.add_argument("--base-model", type=Path, help="a folder; by default the built-in model")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(words)
    address = ADDRESS.format(version("diffusers"))
    if options.script is None or not options.script.is_file():
        parser.error(f"fetch the script from {address} and give its path: --script train_dreambooth_lora.py")
    found: dict[tuple[Case, str], list[Figures]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder))
        for number in range(1, options.rounds + 1):
            for case in CASES:
                pictures = Path(folder) / case.pictures
                base_model = options.base_model and options.base_model.resolve()
                ours = run_ours(case, pictures, base_model)
                found.setdefault((case, OURS), []).append(ours)
                print(number, case.name, OURS, ours, flush=True)
                if case.by_default:
                    continue
                theirs = run_theirs(case, pictures, base_model, options.python, options.script.resolve())
                found.setdefault((case, THEIRS), []).append(theirs)
                print(number, case.name, THEIRS, theirs, flush=True)
    report(found, options.rounds)


def report(found: dict[tuple[Case, str], list[Figures]], rounds: int) -> None:
    """Print and write the table."""
    medians: dict[tuple[Case, str], Figures] = {}
    rows = []
    for (case, side), runs in found.items():
        figures = Figures(*map(median, zip(*runs, strict=True)))
        medians[case, side] = figures
        megabytes = figures.peak_bytes / 1e6
        cells = [f"{figures.cpu_seconds:.1f}", f"{figures.wall_seconds:.1f}", f"{figures.first_step:.1f}"]
        rows.append(f"| {case.name} | {side} | {' | '.join(cells)} | {megabytes:.0f} |")
    ratios = []
    for case in CASES:
        if case.by_default:
            continue
        ours, theirs = medians[case, OURS], medians[case, THEIRS]
        of_each = [theirs_one / ours_one for ours_one, theirs_one in zip(ours, theirs, strict=True)]
        ratios.append(f"| {case.name} | {' | '.join(f'{ratio:.2f}' for ratio in of_each)} |")
    text = _TEXT.format(
        version=version("diffusers"),
        steps=STEPS,
        batch=BATCH,
        rank=RANK,
        size=SIZE,
        class_images=CLASS_IMAGES,
        denoising=SCRIPT_STEPS,
        rounds=rounds,
        rows="\n".join(rows),
        ratios="\n".join(ratios),
    )
    print(text)
    write_section("Beside diffusers' script", text)


_TEXT = """\
`submit dreambooth` and `train_dreambooth_lora.py` of diffusers {version}: the same libraries, base model and prompt;
five pictures, of {size} pixels or JPEGs of 3000x2000; {steps} steps of {batch} pictures, rank {rank}, one thread; class
pictures: {class_images} in {denoising} denoising steps. Ours draws no evaluation (`evaluation_prompts=0`), which the
script does not have, except in "our defaults": all settings as they come, with images and figures of before and after.
CPU seconds are those of all processes of a command (ours are a client, a worker and the training), memory is that of
the largest. Medians of {rounds} rounds in turns, by `python -m benchmarks.beside_diffusers --script PATH`.

| | | CPU seconds | seconds | to the first step | MB |
| --- | --- | --- | --- | --- | --- |
{rows}

Theirs by ours, ratios of these medians:

| | CPU seconds | seconds | to the first step | MB |
| --- | --- | --- | --- | --- |
{ratios}
"""


if __name__ == "__main__":
    main()
