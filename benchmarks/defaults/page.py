"""docs/defaults.md: `page.md` with what was measured filled in."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.defaults.figures import (
    RESAMPLES,
    Estimate,
    Figures,
    class_figures_of,
    figures_of,
    held_drift,
    perfect_figures,
)
from benchmarks.defaults.grid import (
    BARS,
    CLASS_SEEDS,
    EVALUATION_PROMPTS,
    EVALUATION_SEEDS,
    GRID,
    SEEDS,
    Settings,
    declaration,
    is_default,
    rows_of,
)
from benchmarks.defaults.results import Result, Workplace
from benchmarks.defaults.sources import SOURCES, default_of
from benchmarks.defaults.subjects import SUBJECTS
from orchestrator.contract.plurals import counted

PAGE = Path(__file__).parents[2] / "docs" / "defaults.md"
TEMPLATE = Path(__file__).with_name("page.md")
WORDS = {2: "two", 3: "three", 4: "four"}
NOTHING = "-"
HOLDING: Mapping[str, Settings] = {
    NOTHING: {"prior_preservation": False, "output_preservation": False},
    "class pictures": {"prior_preservation": True, "output_preservation": False},
    "output preservation": {"prior_preservation": False, "output_preservation": True},
}
"""What may hold the class in place, and the settings that say so."""


def write_page(path: Path, results: Sequence[Result], workplace: Workplace) -> None:
    """Write the page from all results of a grid."""
    sections = [recipe_section(recipe, results) for recipe in GRID]
    text = TEMPLATE.read_text(encoding="utf-8").format(
        seeds=number(len(SEEDS)),
        subjects=number(len(SUBJECTS)),
        prompts=number(EVALUATION_PROMPTS),
        images=number(len(EVALUATION_SEEDS)),
        class_images=len(CLASS_SEEDS),
        resamples=RESAMPLES,
        sections="\n\n".join(sections),
        class_pictures=class_section(results),
        sources=source_table(),
        runs=run_table(results),
        machine=machine_line(workplace),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def recipe_section(recipe: str, results: Sequence[Result]) -> str:
    """Return the rows of a recipe, which of them is the default, and what came of each."""
    bar = BARS[recipe]
    rows = rows_of(recipe)
    closed, lost = share(bar.closed), share(bar.lost)
    goal = f"Bar: at least {closed} of the gap closed and at most {lost} of fidelity lost, with each seed."
    found = [of_row(results, recipe, row, subject) for row in rows for subject in SUBJECTS]
    done = sum(len(one) for one in found)
    due = len(rows) * len(SUBJECTS) * len(SEEDS)
    parts = [f"### {recipe}", goal, settings_table(recipe, rows)]
    if done < due:
        parts.append(f"{done} of {counted(due, 'run')} are done.")
    parts.append(result_table(recipe, [one for one in found if one]))
    parts.append(perfect_sentence(recipe, results))
    return "\n\n".join(part for part in parts if part)


def settings_table(recipe: str, rows: dict[str, Settings]) -> str:
    """Return what each row sets."""
    fields = list(dict.fromkeys(field for settings in rows.values() for field in settings))
    lines = []
    for row, settings in rows.items():
        declared = declaration(recipe, settings)
        values = [shown(getattr(declared, field)) for field in fields]
        lines.append([title(recipe, row), *values])
    return table(["row", *(f"`{field}`" for field in fields)], lines)


def result_table(recipe: str, found: Sequence[Sequence[Result]]) -> str:
    """Return a line for each row and subject; `found` has the results of each, one for each seed."""
    lines = []
    for results in found:
        each = [figures_of([result]) for result in results]
        mean = figures_of(results)
        trial = results[0].trial
        line = [
            title(recipe, trial.row),
            trial.subject,
            " / ".join(share(one.closed.value) for one in each),
            interval(mean.closed),
            " / ".join(share(one.lost.value, 1) for one in each),
            interval(mean.lost, 1),
            " / ".join(verdict(recipe, one) for one in each),
            *class_cells(results),
            f"{mean_seconds(results):.0f}",
        ]
        lines.append(line)
    seeds = " / ".join(str(seed) for seed in SEEDS)
    head = ["row", "subject", f"gap closed, seeds {seeds}", "mean", "fidelity lost", "mean", "clears the bar"]
    return table([*head, "variety, base -> tuned", "drift", "seconds"], lines)


def perfect_sentence(recipe: str, results: Iterable[Result]) -> str:
    """Return what perfect images would reach of each subject, to compare with."""
    said = {}
    for result in results:
        if result.trial.recipe == recipe:
            closed, lost = perfect_figures(result)
            said[result.trial.subject] = f"{result.trial.subject} {share(closed)} and {share(lost, 1)}"
    if not said:
        return ""
    return f"Perfect images, drawn by program, would close and lose: {'; '.join(said.values())}."


def verdict(recipe: str, figures: Figures) -> str:
    """Return whether a run clears the bar of its recipe."""
    return "yes" if figures.clears(BARS[recipe]) else "no"


def class_cells(results: Sequence[Result]) -> list[str]:
    """Return variety and drift of the class."""
    found = class_figures_of(results)
    if found is None:
        return [NOTHING, NOTHING]
    return [f"{found.variety_before:.3f} -> {found.variety_after:.3f}", f"{found.drift:+.3f}"]


def class_section(results: Sequence[Result]) -> str:
    """Return a line for each way to hold the class, below the row that is the same but for that."""
    lines = []
    rows = rows_of("dreambooth")
    for name, settings in rows.items():
        held = {way: row_of(rows, {**settings, **fields}) for way, fields in HOLDING.items()}
        twins = {way: row for way, row in held.items() if row is not None}
        if held[NOTHING] != name or len(twins) == 1:
            continue
        for subject in SUBJECTS:
            plain = of_row(results, "dreambooth", name, subject)
            for way, row in twins.items():
                lines += class_lines(way, plain, of_row(results, "dreambooth", row, subject))
    head = ["row", "subject", "class held by", "variety, base -> tuned", "drift", "less than without", "gap closed"]
    return table([*head, "fidelity lost", "seconds"], lines)


def row_of(rows: Mapping[str, Settings], settings: Settings) -> str | None:
    """Return the row that declares just these settings."""
    wanted = declaration("dreambooth", settings).model_dump()
    for name, found in rows.items():
        if declaration("dreambooth", found).model_dump() == wanted:
            return name
    return None


def class_lines(way: str, plain: Sequence[Result], held: Sequence[Result]) -> list[list[str]]:
    """Return the line of a row that holds the class in some way; none while it or its twin is not complete."""
    if not held or len(held) != len(plain):
        return []
    mean = figures_of(held)
    less = held_drift(plain, held)
    shown_less = NOTHING
    if less is not None and way != NOTHING:
        shown_less = f"{less.value:+.3f} [{less.low:+.3f}, {less.high:+.3f}]"
    trial = held[0].trial
    figures = [shown_less, interval(mean.closed), interval(mean.lost, 1), f"{mean_seconds(held):.0f}"]
    return [[trial.row, trial.subject, way, *class_cells(held), *figures]]


def source_table() -> str:
    """Return where each default for a model of photos comes from."""
    lines = []
    for source in SOURCES:
        condition = "".join(f" (`{name}={value}`)" for name, value in source.chosen)
        lines.append([source.recipe, f"`{source.field}`{condition}", shown(default_of(source)), source.said])
    return table(["recipe", "setting", "default", "from"], lines)


def run_table(results: Iterable[Result]) -> str:
    """Return a line for each run, with the intervals of its figures."""
    lines = []
    for result in results:
        trial = result.trial
        found = figures_of([result])
        figures = [interval(found.closed), interval(found.lost, 1)]
        lines.append([trial.recipe, trial.row, trial.subject, str(trial.seed), *figures, f"{result.seconds:.0f}"])
    return table(["recipe", "row", "subject", "seed", "gap closed", "fidelity lost", "seconds"], lines)


def of_row(results: Iterable[Result], recipe: str, row: str, subject: str) -> list[Result]:
    """Return the results of a row and a subject, in the order of their seeds."""
    wanted = (recipe, row, subject)
    found = [one for one in results if (one.trial.recipe, one.trial.row, one.trial.subject) == wanted]
    return sorted(found, key=lambda result: result.trial.seed)


def mean_seconds(results: Sequence[Result]) -> float:
    """Return how long a training took on average."""
    return sum(result.seconds for result in results) / len(results)


def title(recipe: str, row: str) -> str:
    """Return the name of a row; that of the recipe's defaults, as declared, stands out."""
    if is_default(recipe, rows_of(recipe)[row]):
        return f"**{row}** (default)"
    return row


def share(value: float, digits: int = 0) -> str:
    """Return a share of 1 in percent."""
    return f"{100 * value:.{digits}f} %"


def interval(estimate: Estimate, digits: int = 0) -> str:
    """Return a share of 1 in percent, with its interval."""
    low, high = (f"{100 * end:.{digits}f}" for end in (estimate.low, estimate.high))
    return f"{share(estimate.value, digits)} [{low}, {high}]"


def shown(value: Any) -> str:
    """Return a setting as it is typed after `-s`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}" if value and value < 1 else f"{value:g}"
    return str(value)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown, or a sentence where it has no lines."""
    if not lines:
        return "Nothing is measured yet."
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def number(value: int) -> str:
    """Return a small number in words."""
    return WORDS.get(value, str(value))


def machine_line(workplace: Workplace) -> str:
    """Return when, where and with which base model this was measured."""
    cores, machine = os.cpu_count(), platform.machine()
    python = platform.python_version()
    model = workplace.base_model_sha256[:12]
    when = f"{datetime.now(UTC):%Y-%m-%d}, Python {python}, {cores} cores, {machine}."
    return f"Base model `{model}` (sha256 of its files), {when}"
