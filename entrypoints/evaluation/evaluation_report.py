"""The report of an evaluation as one page: a view of `evaluation.json` and of the images beside it.

It looks like the report of a run (`page.py` is what they share) and reaches for nothing outside itself either.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from entrypoints.evaluation.evaluation_page import TEMPLATE
from entrypoints.evaluation.page import page
from entrypoints.evaluation.report import MOST_IMAGE_BYTES, write_page
from entrypoints.evaluation.report_images import Compared, Pictures, compared_prompts, real_photos
from entrypoints.evaluation.report_words import Ending, Fact
from orchestrator.contract.environment import Environment
from orchestrator.contract.evaluation_result import ControlAgreement, Estimate, EvaluationResult, Figure
from orchestrator.contract.figures import AFTER, BEFORE, CEILING, EVALUATED, Measure
from orchestrator.contract.plurals import counted

_MARGIN = 0.08
"""Share of an axis that is left free on each side."""
_LEAST_SPAN = 1e-3


class Lane(NamedTuple):
    """One estimate, drawn as a dot with its interval; places are percents of the axis."""

    name: str
    kind: str
    """What colours it: "base", "adapter" or "real"."""
    text: str
    dot: float
    left: float | None
    """Where the interval begins; None without one."""
    width: float | None


Named = tuple[str, str, Estimate | None]
"""Name and kind of a lane, and its estimate."""


class Controlled(NamedTuple):
    """How far a ControlNet is obeyed, as the page shows it."""

    label: str
    lanes: Sequence[Lane]
    gap: str
    """Own minus shuffled map, as text; empty where it was not measured."""
    times_base: str
    """Ratio to the base model, as text; empty where that means nothing."""
    share_of_ceiling: str
    """Ratio to the ceiling, as text; empty where that means nothing."""


class Measured(NamedTuple):
    """A figure, as the page shows it."""

    measure: str
    term: str
    space: str
    lanes: Sequence[Lane]
    gap: str
    """How much of the gap is closed, as text; empty where that means nothing."""
    differs: str
    """What the interval of the difference says."""
    no_interval: str
    """Why some of it has no interval; empty where all has."""


def write_evaluation_report(environment: Environment, folder: Path, result: EvaluationResult, ending: Ending) -> None:
    """Write the page of an evaluation whose images lie in `folder`; raises OSError, and ValueError for a large page."""
    pictures = Pictures()
    asked = []
    unrelated = []
    for one in compared_prompts(folder, pictures):
        if one.prompt in result.unrelated:
            unrelated.append(one)
        else:
            asked.append(one)
    values = {
        "title": result.title,
        "ending": ending,
        "facts": _facts(result),
        "figures": list(_measured(result)),
        "control": [_controlled(figure) for figure in result.control],
        "asked": asked,
        "unrelated": unrelated,
        "real": real_photos(folder, pictures),
        "skipped": result.skipped,
        "meanings": list(_meanings(result)),
        "files": _spaces(result),
        "are_captions": result.prompts_are_captions,
        "more": _left_out([*asked, *unrelated]),
    }
    pictures.embed(MOST_IMAGE_BYTES)
    text = page(TEMPLATE, values)
    write_page(environment, text)


def _facts(result: EvaluationResult) -> list[Fact]:
    adapter = result.adapter
    drawn = result.drawn_with
    steps = counted(drawn.steps, "step")
    number = counted(len(result.seeds), "seed")
    seeds = str(result.seeds[0])
    if len(result.seeds) > 1:
        seeds = f"{seeds} to {result.seeds[-1]}"
    base = result.base_model
    facts = [
        Fact("adapter", f"{adapter.name}, {adapter.kind} by {adapter.recipe}, {adapter.sha256[:12]}"),
        Fact("base model", f"{base.id}, {base.fingerprint[:12]}"),
        Fact("prompts", _prompts(result)),
        Fact("seeds", f"{number} of each prompt: {seeds}"),
        Fact("drawn in", f"{steps}, guidance {drawn.guidance:g}, {drawn.size} pixels"),
        Fact("reference", result.reference or "none"),
    ]
    if adapter.trigger:
        facts.insert(1, Fact("subject", adapter.trigger))
    if adapter.weight != 1:
        facts.insert(1, Fact("weight", f"{adapter.weight:g}"))
    return facts


def _prompts(result: EvaluationResult) -> str:
    """Return how many prompts there are, in words."""
    prompts = counted(len(result.prompts), "prompt")
    if result.control:
        return f"{prompts}, one for each picture that is drawn anew"
    return f"{prompts}, and {len(result.unrelated)} unrelated"


def _measured(result: EvaluationResult) -> Iterator[Measured]:
    measures = {measure.name: measure for measure in EVALUATED}
    labels = {space.name: space.label for space in result.spaces}
    for figure in result.figures:
        measure = measures.get(figure.measure)
        if measure is None:  # of a newer version
            continue
        yield Measured(
            measure=measure.label,
            term=_term(measure, figure.space),
            space=labels.get(figure.space, figure.space),
            lanes=_lanes(_named(figure)),
            gap=_text(figure.gap_closed, 2),
            differs=_difference(figure.difference),
            no_interval=figure.no_interval,
        )


def _controlled(figure: ControlAgreement) -> Controlled:
    """Return the agreement with one kind of map, as the page shows it."""
    named = (
        ("without", "base", figure.base),
        ("shuffled", "base", figure.shuffled),
        ("with", "adapter", figure.own),
        ("ceiling", "real", figure.ceiling),
    )
    return Controlled(
        label=figure.label,
        lanes=_lanes(named),
        gap=_text(figure.gap),
        times_base=_text(figure.times_base, 2),
        share_of_ceiling=_text(figure.share_of_ceiling, 2),
    )


def _term(measure: Measure, space: str) -> str:
    """Return what papers call a measure: that by CLIP has a name of its own."""
    if space == "clip":
        return measure.term
    if not measure.term.startswith("CLIP"):
        return measure.term
    return "mean cosine"


def _named(figure: Figure) -> list[Named]:
    """Return the estimates of a figure with their names and colours."""
    base = "base"
    if figure.measure == "drift":
        base = "another seed"
    return [
        (base, "base", figure.base),
        ("adapter", "adapter", figure.adapter),
        ("real", "real", figure.ceiling),
    ]


def _lanes(named: Sequence[Named]) -> list[Lane]:
    """Return estimates on one axis, those that are known."""
    known = []
    marks = []
    for name, kind, estimate in named:
        if estimate is None:
            continue
        known.append((name, kind, estimate))
        for mark in (estimate.value, estimate.low, estimate.high):
            if mark is not None:
                marks.append(mark)
    low = min(marks)
    high = max(marks)
    extent = max(high - low, _LEAST_SPAN)
    margin = _MARGIN * extent
    start = low - margin
    span = extent + 2 * margin
    lanes = []
    for name, kind, estimate in known:
        dot = 100 * (estimate.value - start) / span
        left = None
        width = None
        if estimate.low is not None and estimate.high is not None:
            from_start = estimate.low - start
            wide = estimate.high - estimate.low
            left = round(100 * from_start / span, 2)
            width = round(100 * wide / span, 2)
        text = _text(estimate)
        lane = Lane(name, kind, text, round(dot, 2), left, width)
        lanes.append(lane)
    return lanes


def _text(estimate: Estimate | None, digits: int = 3) -> str:
    if estimate is None:
        return ""
    return estimate.text(digits)


def _difference(estimate: Estimate | None) -> str:
    """Return the difference in words."""
    if estimate is None:
        return ""
    text = f"adapter minus base {_text(estimate)}"
    if estimate.differs:
        return text
    return f"{text}: may be none"


def _meanings(result: EvaluationResult) -> Iterator[Fact]:
    """Yield what each figure means, in the words of docs/metrics.md."""
    shown = {figure.measure for figure in result.figures}
    moments = {BEFORE: "base", AFTER: "adapter", CEILING: "real"}
    for measure in EVALUATED:
        if measure.name not in shown:
            continue
        for moment, meaning in measure.meanings.items():
            name = f"{measure.label}, {moments[moment]}"
            yield Fact(name, meaning)


def _spaces(result: EvaluationResult) -> list[Fact]:
    return [Fact(space.label, space.sha256) for space in result.spaces]


def _left_out(compared: Sequence[Compared]) -> int:
    images = 0
    for one in compared:
        images += one.left_out
    return images
