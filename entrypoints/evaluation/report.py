"""The report of a run as one page, which is a view of what the run left: nothing is drawn for it.

One HTML file under 5 MB that reaches for nothing outside itself. `report_images.py` chooses its images,
`report_words.py` its words, `report_page.py` is how it looks.
"""

from entrypoints.evaluation.report_images import (
    Compared,
    Pictures,
    Shown,
    compared_prompts,
    real_photos,
    timeline_of,
    training_images,
)
from entrypoints.evaluation.report_page import render
from entrypoints.evaluation.report_words import (
    Ending,
    alerts_of,
    curves_of,
    facts_of,
    figures_of,
    meanings_of,
    settings_of,
    some_of,
)
from entrypoints.runtime.history import read_history, read_warnings
from entrypoints.runtime.machine import Machine
from orchestrator.contract.adapter import AdapterManifest, title_of
from orchestrator.contract.environment import FINDINGS_CHANNEL, Environment
from orchestrator.contract.events import warnings_told
from orchestrator.contract.findings import Findings
from orchestrator.contract.recipe import Recipe, chosen

MOST_BYTES = 5_000_000
MOST_IMAGE_BYTES = 4_000_000
"""Of the page, as data URIs. What is left is far more than its words take."""


def write_report(environment: Environment, recipe: Recipe, machine: Machine, ending: Ending) -> None:
    """Write the report of a run that has ended; raises OSError, and ValueError where the page is too large."""
    pictures = Pictures()
    steps = read_history(environment.checkpoints)
    # Those of earlier attempts and up to the last checkpoint, and those of this process, the evaluation's too.
    warnings = [*read_warnings(environment.checkpoints), *warnings_told()]
    findings = Findings.read(environment.channel(FINDINGS_CHANNEL))
    manifest = None
    compared: list[Compared] = []
    real: list[Shown] = []
    if ending.is_complete:  # else what lies there, if anything does, is not of this run
        manifest = AdapterManifest.read(environment.model)
        compared = compared_prompts(environment.model, pictures)
        real = real_photos(environment.model, pictures)
    values = {
        "title": title_of(recipe.recipe_name(), recipe.trigger),
        "ending": ending,
        "alerts": alerts_of(warnings, findings),
        "facts": facts_of(environment, recipe, machine, ending, steps),
        "curves": curves_of(steps, recipe.steps),
        "records": some_of(steps),
        "timeline": timeline_of(environment.samples, pictures),
        "compared": compared,
        "prompts_are_captions": not recipe.judged_by,
        "real": real,
        "figures": figures_of(manifest),
        "meanings": meanings_of(manifest),
        "data": training_images(environment, findings, pictures),
        "chosen": settings_of(recipe, chosen(recipe)),
        "settings": settings_of(recipe, recipe.model_dump(mode="json")),
        "libraries": sorted(machine.libraries.items()),
    }
    pictures.embed(MOST_IMAGE_BYTES)
    write_page(environment, render(values))


def write_page(environment: Environment, page: str) -> None:
    """Write the page, whole or not at all."""
    # A caption may hold half of a surrogate pair, which JSON can spell and UTF-8 cannot.
    data = page.encode("utf-8", errors="replace")
    if len(data) > MOST_BYTES:
        raise ValueError(f"the page has {len(data)} bytes, and may have {MOST_BYTES}")
    report = environment.report
    report.parent.mkdir(parents=True, exist_ok=True)
    draft = report.with_name(f".{report.name}.draft")
    try:
        draft.write_bytes(data)
        draft.replace(report)
    finally:
        draft.unlink(missing_ok=True)
