"""docs/results.md: `page.md` with what was measured filled in."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.results.experiments import (
    CANNY,
    DREAMBOOTH,
    FULL,
    INVERSION,
    PIVOTAL,
    STYLE,
    STYLE_IN_ATTENTION,
    SUBJECTS,
    UNION,
)
from benchmarks.results.held_out import PICTURES
from benchmarks.results.runs import Measured
from benchmarks.results.style_scorer import StyleScorer
from entrypoints.evaluation.bootstrap import Bootstrap
from orchestrator.contract.evaluation_result import Estimate
from orchestrator.contract.figures import DRIFT, PROMPT_FIDELITY, SUBJECT_FIDELITY

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
TEMPLATE = Path(__file__).with_name("page.md")
CLIP, EFFICIENTNET = "clip", "efficientnet"
NOTHING = "-"
DIGITS = 3
RESAMPLES = 2000

Found = Mapping[str, Sequence[Measured]]
"""What was measured, by the name of the experiment, in the order of the seeds."""


def write_page(path: Path, found: Found) -> None:
    """Write the page."""
    text = TEMPLATE.read_text(encoding="utf-8").format(
        subjects=subject_table(found),
        full=full_sentence(found),
        pivotal=pivotal_sentence(found),
        style=style_section(found),
        held_out=PICTURES,
        control=control_section(found),
        machine=machine_line(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def subject_table(found: Found) -> str:
    """Return a line for each training that learned the sample subject."""
    lines = []
    for experiment in SUBJECTS:
        for one in found.get(experiment.name, ()):
            line = [
                one.experiment,
                str(one.seed),
                closed(one, CLIP),
                closed(one, EFFICIENTNET),
                lost(one),
                drift(one),
                kilobytes(one.weights_bytes),
                f"{one.cpu_seconds:.0f}",
                f"{one.peak_bytes / 1e6:.0f}",
            ]
            lines.append(line)
    if not lines:
        return "Not measured yet."
    head = ["training", "seed", "gap closed, CLIP", "gap closed, EfficientNet", "fidelity lost", "drift", "weights, kB"]
    return table([*head, "CPU seconds", "peak MB"], lines)


def closed(one: Measured, space: str) -> str:
    """Return the share of the gap that is closed in a feature space."""
    figure = one.figure(SUBJECT_FIDELITY.name, space)
    if figure is None or figure.gap_closed is None:
        return NOTHING
    return percent(figure.gap_closed)


def lost(one: Measured) -> str:
    """Return the share of prompt fidelity that is lost."""
    figure = one.figure(PROMPT_FIDELITY.name, CLIP)
    if figure is None or figure.base is None or figure.difference is None:
        return NOTHING
    return percent(scaled(figure.difference, -1 / figure.base.value), digits=1)


def drift(one: Measured) -> str:
    """Return how far images of unrelated prompts move."""
    figure = one.figure(DRIFT.name, CLIP)
    if figure is None:
        return NOTHING
    return figure.adapter.text(DIGITS)


def full_sentence(found: Found) -> str:
    """Return how a LoRA compares with all weights trained."""
    low_rank, full = found.get(DREAMBOOTH.name), found.get(FULL.name)
    if not low_rank or not full:
        return ""
    ratio = full[0].weights_bytes / low_rank[0].weights_bytes
    parts = []
    for space, name in ((CLIP, "CLIP"), (EFFICIENTNET, "EfficientNet")):
        ours = low_rank[0].figure(SUBJECT_FIDELITY.name, space)
        theirs = full[0].figure(SUBJECT_FIDELITY.name, space)
        if ours is not None and theirs is not None:
            parts.append(f"{ours.adapter.value / theirs.adapter.value:.2f} by {name}")
    fidelities = " and ".join(parts)
    return (
        f"A LoRA beside full fine-tuning, both with their defaults and in float32: its file is 1/{ratio:.1f} of the "
        f"other's, and its subject fidelity is {fidelities} of the other's."
    )


def pivotal_sentence(found: Found) -> str:
    """Return how pivotal tuning compares with each of its halves alone, for each seed."""
    both = found.get(PIVOTAL.name, ())
    adapters = found.get(DREAMBOOTH.name, ())
    words = found.get(INVERSION.name, ())
    parts = []
    for pivotal, adapter, word in zip(both, adapters, words, strict=False):
        trainings = (pivotal, adapter, word)
        closed_by = [f"{share_closed(one):.0%}" for one in trainings]
        lost_by = [f"{share_lost(one):.0%}" for one in trainings]
        parts.append(f"seed {pivotal.seed}: {' / '.join(closed_by)} closed, {' / '.join(lost_by)} lost")
    if not parts:
        return ""
    return (
        "Pivotal tuning / DreamBooth alone / textual inversion alone, gap closed by CLIP and prompt fidelity lost: "
        f"{'; '.join(parts)}."
    )


def share_closed(one: Measured) -> float:
    """Return the share of the gap that is closed by CLIP, 0 where it cannot be said."""
    figure = one.figure(SUBJECT_FIDELITY.name, CLIP)
    if figure is None or figure.gap_closed is None:
        return 0.0
    return figure.gap_closed.value


def share_lost(one: Measured) -> float:
    """Return the share of prompt fidelity that is lost, 0 where it cannot be said."""
    figure = one.figure(PROMPT_FIDELITY.name, CLIP)
    if figure is None or figure.base is None or figure.difference is None:
        return 0.0
    return -figure.difference.value / figure.base.value


def style_section(found: Found) -> str:
    """Return how likely images of the style's adapter are in the style, with it and at strength 0."""
    runs = found.get(STYLE.name)
    if not runs:
        return "Not measured yet."
    lines = []
    for one in [*runs, *found.get(STYLE_IN_ATTENTION.name, ())]:
        for weight, probabilities in one.style.items():
            estimate = Bootstrap(RESAMPLES, 0).mean(np.asarray(probabilities))
            lines.append([one.experiment, weight, str(len(probabilities)), estimate.text(DIGITS)])
    accuracy = StyleScorer.of_drawn_scenes().accuracy
    said = (
        "The recipe `lora` on the sixteen packaged pictures in ink. How likely an image is in that style is said by a "
        "logistic regression on features of EfficientNet-Lite0, fitted on scenes of which no training picture shows "
        f"one; it is right about {accuracy:.1%} of others."
    )
    shown = table(["training", "strength of the adapter", "images", "probability of the style"], lines)
    return f"{said}\n\n{shown}"


def control_section(found: Found) -> str:
    """Return how far the ControlNets are obeyed on pictures that they were not trained on."""
    lines = []
    for experiment in (CANNY, UNION):
        for one in found.get(experiment.name, ()):
            for agreement in one.evaluations["1.0"].control:
                estimates = (
                    agreement.base,
                    agreement.own,
                    agreement.times_base,
                    agreement.gap,
                    agreement.ceiling,
                    agreement.share_of_ceiling,
                )
                cells = [NOTHING if estimate is None else estimate.text(DIGITS) for estimate in estimates]
                lines.append([one.experiment, agreement.label, *cells])
    if not lines:
        return "Not measured yet."
    head = ["training", "agreement with", "without a map", "with it", "times", "with - shuffled", "ceiling"]
    return table([*head, "share of the ceiling"], lines)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """Return an estimate times a factor, which turns its interval round where it is negative."""
    if estimate.low is None or estimate.high is None:
        return estimate.model_copy(update={"value": factor * estimate.value})
    low, high = sorted((factor * estimate.low, factor * estimate.high))
    return Estimate(value=factor * estimate.value, low=low, high=high)


def percent(estimate: Estimate, digits: int = 0) -> str:
    """Return a share of 1 in percent, with its interval."""
    value, _, rest = scaled(estimate, 100).text(digits).partition(" ")
    return f"{value} % {rest}"


def kilobytes(size: int) -> str:
    """Return a size in thousands of bytes."""
    return f"{size / 1000:,.0f}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine_line() -> str:
    """Return when and where this was measured."""
    cores, machine = os.cpu_count(), platform.machine()
    return f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {cores} cores, one thread, {machine}."
