"""The section of docs/benchmarks.md for each recipe: its table of time and memory, of quality, and of kills."""

import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from statistics import median
from typing import NamedTuple

from benchmarks.beside_diffusers.cases import (
    CLASS_IMAGES,
    RANK,
    RESOLUTION,
    SCRIPT_STEPS,
    TRIED_PICTURES,
    VECTORS,
    Comparison,
)
from benchmarks.beside_diffusers.resumption import Resumption
from benchmarks.beside_diffusers.sides import Figures
from benchmarks.results.held_out import PICTURES
from orchestrator.contract.plurals import counted

COLUMNS = ["CPU seconds", "seconds", "to the first step", "MB"]
WIDTH = 120


class Measured(NamedTuple):
    """All that was measured of a recipe and its script."""

    comparison: Comparison
    sides: Sequence[str]
    """Names of both, ours first."""
    asked_for: str
    """Version of diffusers that the script asks for."""
    rounds: int
    images: int
    """Images of each prompt, for quality."""
    figures: Mapping[tuple[str, str], Sequence[Figures]]
    """What trainings took, by case and side, one a round."""
    load: float
    """Of the machine, the highest that a training has begun with."""
    quality: Mapping[tuple[str, str, int], Mapping[str, str]]
    """What the results draw, by case, side and seed of the training."""
    kills: Mapping[tuple[str, str], Resumption]
    """What came of kills, by case and side."""


def title(recipe: str) -> str:
    """Return the title of a recipe's section."""
    return f"Beside diffusers: {recipe}"


def section(measured: Measured) -> str:
    """Return the text of a recipe's section."""
    medians = {key: Figures(*map(median, zip(*runs, strict=True))) for key, runs in measured.figures.items()}
    parts = [
        *introduction(measured),
        figures_table(medians),
        "Theirs by ours, ratios of these medians:",
        ratios_table(measured.sides, medians),
        paragraph(_LOAD.format(load=measured.load)),
        quality_text(measured),
        quality_table(measured.quality),
        paragraph(_KILLS.format(steps=counted(measured.comparison.pass_steps, "step"))),
        kills_table(measured.kills),
    ]
    return "\n\n".join(parts)


def introduction(measured: Measured) -> list[str]:
    """Return what was run, and what the sides do not have in common."""
    comparison = measured.comparison
    budget = comparison.budget
    common = _COMMON.format(
        recipe=comparison.recipe,
        script=comparison.script_name,
        asked_for=measured.asked_for,
        version=version("diffusers"),
        steps=budget.steps,
        batch=budget.batch,
        rate=budget.rate,
        schedule=budget.schedule,
        rounds=counted(measured.rounds, "round"),
    )
    own = _OWN[comparison.recipe].format(
        pictures=comparison.pictures,
        repeats=comparison.repeats,
        size=RESOLUTION,
        rank=RANK,
        vectors=VECTORS,
        class_images=CLASS_IMAGES,
        class_steps=CLASS_IMAGES // budget.batch,
        denoising=SCRIPT_STEPS,
        tried=TRIED_PICTURES,
    )
    return [paragraph(common), paragraph(own)]


def quality_text(measured: Measured) -> str:
    """Return what was drawn and how it was measured."""
    images = counted(measured.images, "image")
    text = _QUALITY[measured.comparison.recipe].format(images=images, held_out=PICTURES)
    return paragraph(text)


def paragraph(text: str) -> str:
    """Return prose in lines of this page's width."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def figures_table(medians: Mapping[tuple[str, str], Figures]) -> str:
    """Return what the trainings took."""
    rows = []
    for (case, side), figures in medians.items():
        seconds = [f"{value:.1f}" for value in figures[:3]]
        rows.append([case, side, *seconds, f"{figures.peak_bytes / 1e6:.0f}"])
    return table(["", "", *COLUMNS], rows)


def ratios_table(sides: Sequence[str], medians: Mapping[tuple[str, str], Figures]) -> str:
    """Return theirs by ours, for the cases that both have."""
    ours, theirs = sides
    rows = []
    for case, side in medians:
        if side != theirs:
            continue
        ratios = []
        for one, other in zip(medians[case, theirs], medians[case, ours], strict=True):
            ratios.append(f"{one / other:.2f}")
        rows.append([case, *ratios])
    return table(["", *COLUMNS], rows)


def quality_table(quality: Mapping[tuple[str, str, int], Mapping[str, str]]) -> str:
    """Return what the results draw."""
    columns: list[str] = []
    rows = []
    for (case, side, seed), figures in quality.items():
        columns = list(figures)
        rows.append([case, side, str(seed), *figures.values()])
    return table(["", "", "seed", *columns], rows)


def kills_table(kills: Mapping[tuple[str, str], Resumption]) -> str:
    """Return what came of kills."""
    rows = []
    for (case, side), one in kills.items():
        numbers = [str(one.killed_at), str(one.done_again)]
        rows.append([case, side, one.twice, *numbers, one.verdict])
    return table(["", "", "run twice, not killed", "killed at step", "steps done again", "file after the kill"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_COMMON = """\
`submit {recipe}` and the example script `{script}` of diffusers, unchanged (it asks for {asked_for} or newer; installed
is {version}): the same libraries and the built-in model; {steps} steps of {batch} pictures, rate {rate:g} ({schedule}),
the same weight decay, one thread, a checkpoint halfway. Ours draws no evaluation (`evaluation_prompts=0`), which the
script does not have, except in "our defaults": all settings as they come but the number of steps, with images and
figures of before and after. The watchdog of ours cannot be switched off and is part of its figures. CPU seconds are
those of all processes of a command (ours are a client, a worker and the training), memory is that of the largest.
Medians of {rounds} in turns, each with a seed of its own, by
`python -m benchmarks.beside_diffusers --scripts FOLDER`."""
_LOAD = """\
The machine's load was {load:.1f} at most when a training began; each computes in one thread, on two cores. Where it is
above 2, other work took from both, and CPU seconds tell more than seconds."""
_OWN = {
    "dreambooth": """\
{pictures} pictures, of {size} pixels or JPEGs of 3000x2000; rank {rank} on attention, which is all that the script
adapts; class pictures: {class_images} in {denoising} denoising steps, with which a pass is {class_steps} steps. Both
clip gradients at 1. A step takes all pictures: of smaller batches the script would make some of what is left over,
where ours always fills them.""",
    "textual-inversion": """\
{pictures} pictures of {size} pixels, which the script counts {repeats} times each; {vectors} vectors. Not the same: the
script mirrors every second picture by chance, does not clip gradients (ours does, at 1), and draws training prompts
from 27 of its own, most with an article before the new word, where ours has 8 in words of the built-in model, most
without one.""",
    "controlnet": """\
{pictures} layouts of {size} pixels with captions and edges, which both are given as files; half of the captions left
out, no edges. Both clip gradients at 1. The ControlNet that the script makes does not fit the built-in model, whose
autoencoder divides by 4 and not by 8; so it is given the untrained one of ours to start from
(`--controlnet_model_name_or_path`). Ours draws {tried} layouts before the first step, without and with its network,
to tell later whether maps are obeyed; no setting makes it fewer, and they are part of its figures. In "our defaults"
it draws eight every 100 steps.""",
}
_SUBJECT = """\
What the files draw in plain diffusers: the recipe's eight evaluation prompts, which no training
has seen, {images} of each, measured by the functions of `evaluate` (docs/metrics.md). Gap closed: 0 is the base model,
1 real pictures. Drift on unrelated prompts: less is better."""
_QUALITY = {
    "dreambooth": _SUBJECT,
    "textual-inversion": f"{_SUBJECT} Each side's word is asked for as it was trained: with an article for the script.",
    "controlnet": """\
What the files draw in plain diffusers: {held_out} layouts that no training has seen,
{images} of each, by their captions and edges; measured by the functions of `evaluate` (docs/metrics.md).""",
}
_KILLS = """\
The training of seed 0 again: once without a kill, to see whether it repeats itself at all; then killed with SIGKILL,
all its processes, at three quarters of the steps, and run again (`--resume`; `--resume_from_checkpoint latest`). The
last column compares the file that it ends with and that of the first training, byte by byte. The script goes on with
the first batch of a pass through the pictures, wherever in it its checkpoint was saved; here a pass is {steps}."""
