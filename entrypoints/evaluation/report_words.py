"""The words and numbers of a report: how the run ended, its curve, figures, settings, time and cost."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from entrypoints.evaluation.curve import Curve, draw_curve
from entrypoints.runtime.history import StepRecord
from entrypoints.runtime.machine import Machine
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.environment import Environment
from orchestrator.contract.figures import AFTER, BEFORE, CEILING, measures_in
from orchestrator.contract.findings import Findings
from orchestrator.contract.plurals import counted
from orchestrator.contract.recipe import Recipe

MOST_ROWS = 20
"""Steps in the table of numbers."""
LEAST_TO_SMOOTH = 10
"""Steps of a curve that has a smoothed line."""
MOST_WARNINGS = 30
MOST_FINDINGS_ON_TOP = 8
"""All of them are beside the training data."""
_ABSENT = "-"
_MINUTE = 60


class Ending(NamedTuple):
    """How a run ended."""

    status: str
    """As a heading says it: COMPLETED, STOPPED or FAILED."""
    seconds: float
    """From the start of this attempt's process to its end."""
    message: str = ""
    """What happened and why, where the run is not complete."""
    next_step: str = ""
    """What to do then."""

    @property
    def is_complete(self) -> bool:
        """Whether the run has published its adapter."""
        return self.status == COMPLETED


COMPLETED = "Completed"
STOPPED = "Stopped"
FAILED = "Failed"


class Alerts(NamedTuple):
    """What a person should know of a run before anything else."""

    warnings: Sequence[str]
    """What the run warned of, each once, in its order."""
    findings: Sequence[str]
    """What was found in its training data."""
    left_out: int
    """Findings that are not among these."""


class Fact(NamedTuple):
    """A line of a table."""

    name: str
    value: str
    help: str = ""
    """What the name means."""


class FigureRow(NamedTuple):
    """One quality of the adapter, as text."""

    label: str
    term: str
    before: str
    after: str
    ceiling: str


def alerts_of(warnings: Sequence[str], findings: Findings) -> Alerts:
    """Return the warnings of a run and what was found in its data; of many findings the first."""
    distinct = list(dict.fromkeys(warnings))
    told = distinct[:MOST_WARNINGS]
    shown = findings.problems[:MOST_FINDINGS_ON_TOP]
    left_out = len(findings.problems) - len(shown)
    rendered = [problem.render() for problem in shown]
    return Alerts(told, rendered, left_out)


def facts_of(
    environment: Environment,
    recipe: Recipe,
    machine: Machine,
    ending: Ending,
    steps: Sequence[StepRecord],
) -> list[Fact]:
    """Return what the run was, on which machine, how long it took, and what that cost."""
    done = 0
    if steps:
        done = steps[-1].step
    facts = [
        Fact("recipe", f"{recipe.recipe_name()}: {recipe.summary}"),
        Fact("base model", recipe.base_model),
        Fact("steps", f"{done} of {recipe.steps}"),
    ]
    if recipe.trigger:
        facts.insert(1, Fact("subject", recipe.trigger))
    facts.append(Fact("machine", _machine(environment, machine)))
    if done:
        seconds = steps[-1].seconds
        seconds_a_step = seconds / done
        facts.append(Fact("training", f"{duration(seconds)}, {seconds_a_step:.3g} s a step"))
    attempt = duration(ending.seconds)
    facts.append(Fact("this attempt", f"{attempt}, with loading, drawing and measuring"))
    usd = environment.usd_per_hour
    if usd is not None:
        cost = usd * ending.seconds / 3600
        facts.append(Fact("cost of it", f"about ${cost:.2f}, at a list price of ${usd:.2f} an hour"))
    return facts


def _machine(environment: Environment, machine: Machine) -> str:
    """Return what the run computed on, and what SageMaker calls it."""
    computes = f"{machine.device}, {counted(machine.threads, 'CPU thread')}"
    hosts = environment.hosts()
    if not hosts.instance_type:
        return computes
    return f"{len(hosts.hosts)} x {hosts.instance_type}: {computes}"


def curves_of(steps: Sequence[StepRecord], last: int) -> list[Curve]:
    """Return the curves of a run: loss, what its objective measures, and the learning rate; none without a step."""
    if not steps:
        return []
    smooth = len(steps) >= LEAST_TO_SMOOTH
    numbers = [record.step for record in steps]
    losses = [record.loss for record in steps]
    curves = [draw_curve("Loss", numbers, losses, last, smooth=smooth)]
    for name in steps[-1].measures:
        numbers_of_it = []
        values = []
        for record in steps:
            if name in record.measures:
                numbers_of_it.append(record.step)
                values.append(record.measures[name])
        title = name.replace("_", " ")
        curve = draw_curve(title, numbers_of_it, values, last, smooth=smooth)
        curves.append(curve)
    rates = [record.learning_rate for record in steps]
    curves.append(draw_curve("Learning rate", numbers, rates, last, smooth=False))
    return curves


def some_of(steps: Sequence[StepRecord]) -> list[StepRecord]:
    """Return some of the steps, evenly spread, the last among them."""
    every = max(1, len(steps) // MOST_ROWS)
    newest_first = steps[::-1]
    chosen = newest_first[::every]
    return list(reversed(chosen))


def figures_of(manifest: AdapterManifest | None) -> list[FigureRow]:
    """Return what was measured on the finished adapter; nothing where nothing was."""
    if manifest is None or not manifest.metrics:
        return []
    rows = []
    for measure in measures_in(manifest.metrics):
        values = []
        for moment in (BEFORE, AFTER, CEILING):
            name = measure.figure(moment)
            figure = manifest.metrics.get(name)
            text = _ABSENT
            if figure is not None:
                text = f"{figure:.3f}"
            values.append(text)
        rows.append(FigureRow(measure.label, measure.term, *values))
    return rows


def meanings_of(manifest: AdapterManifest | None) -> list[Fact]:
    """Return what each figure means, in the words of docs/metrics.md."""
    if manifest is None or not manifest.metrics:
        return []
    meanings = []
    for measure in measures_in(manifest.metrics):
        for moment, meaning in measure.meanings.items():
            name = f"{measure.label}, {moment}"
            meanings.append(Fact(name, meaning))
    return meanings


def settings_of(recipe: Recipe, settings: Mapping[str, Any]) -> list[Fact]:
    """Return settings of a recipe as one types them, each with its help; its own before those of every recipe."""
    facts = []
    for name, value in reversed(settings.items()):
        text = value
        if not isinstance(value, str):
            text = json.dumps(value, ensure_ascii=False)
        description = type(recipe).model_fields[name].description or ""
        facts.append(Fact(name, text, description))
    return facts


def duration(seconds: float) -> str:
    """Return a time in words: "45 s", "7 min 30 s", "3 h 05 min"."""
    minutes, rest = divmod(round(seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    if hours:
        return f"{hours} h {minutes:02} min"
    if minutes:
        return f"{minutes} min {rest:02} s"
    return f"{rest} s"
