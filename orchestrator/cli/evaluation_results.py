"""What an evaluation has measured, on a terminal."""

import click

from orchestrator.cli.output import print_table, say
from orchestrator.contract.adapter import CONTACT_SHEET_FILE
from orchestrator.contract.evaluation_result import EVALUATION_FILE, Estimate, EvaluationResult, Figure
from orchestrator.contract.figures import EVALUATED
from orchestrator.contract.plurals import counted

_HEADS = ("MEASURE", "BY", "BASE", "ADAPTER", "DIFFERENCE", "REAL PHOTOS", "GAP CLOSED")
_ABSENT = "-"


def evaluation_facts(location: str) -> list[tuple[str, str]]:
    """Return where the result of an evaluation lies, by the folder or URI of all of it."""
    folder = location.rstrip("/")
    return [
        ("figures", f"{folder}/{EVALUATION_FILE}"),
        ("images", f"{folder}/{CONTACT_SHEET_FILE}"),
    ]


def print_evaluation(result: EvaluationResult) -> None:
    """Print the figures as a table, and below it what was skipped."""
    labels = {measure.name: measure.label for measure in EVALUATED}
    spaces = {space.name: space.label for space in result.spaces}
    rows = []
    for figure in result.figures:
        label = labels.get(figure.measure, figure.measure)
        space = spaces.get(figure.space, figure.space)
        rows.append((label, space, *_cells(figure)))
    click.echo()
    print_table(_HEADS, rows)
    share = f"{result.confidence:.0%}"
    say(
        f"In brackets: {share} bootstrap intervals over the images of {counted(len(result.prompts), 'prompt')} x "
        f"{counted(len(result.seeds), 'seed')}, and for drift of {counted(len(result.unrelated), 'unrelated prompt')}, "
        "where BASE is the drift from seed to seed."
    )
    reasons = dict.fromkeys(figure.no_interval for figure in result.figures if figure.no_interval)
    for reason in reasons:
        say(f"No interval: {reason}. Evaluate more images with --seeds N or --prompts FILE, or more real ones.")
    if result.skipped:
        click.echo("\nSkipped:")
    for skipped in result.skipped:
        say(f"  {skipped.what}: {skipped.why}. To measure it: {skipped.how}")


def _cells(figure: Figure) -> list[str]:
    """Return the estimates of a figure as cells of its row."""
    shown = (figure.base, figure.adapter, figure.difference, figure.ceiling)
    cells = [_text(estimate) for estimate in shown]
    return [*cells, _text(figure.gap_closed, digits=2)]


def _text(estimate: Estimate | None, digits: int = 3) -> str:
    """Return an estimate with its interval: "0.712 [0.690, 0.731]"."""
    if estimate is None:
        return _ABSENT
    return estimate.text(digits)
