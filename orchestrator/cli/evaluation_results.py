"""What an evaluation has measured, on a terminal."""

import click

from orchestrator.cli.output import print_table, say
from orchestrator.contract.adapter import CONTACT_SHEET_FILE
from orchestrator.contract.evaluation_result import EVALUATION_FILE, Estimate, EvaluationResult, Figure
from orchestrator.contract.figures import EVALUATED
from orchestrator.contract.plurals import counted

_HEADS = ("MEASURE", "BY", "BASE", "ADAPTER", "DIFFERENCE", "REAL PHOTOS", "GAP CLOSED")
_CONTROL_HEADS = ("CONTROL AGREEMENT", "WITHOUT", "WITH", "SHUFFLED", "WITH - SHUFFLED", "CEILING", "OF CEILING")
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
    if result.control:
        _print_control(result)
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
    drift = ""
    if result.unrelated:
        drift = (
            f", and for drift of {counted(len(result.unrelated), 'unrelated prompt')}, "
            "where BASE is the drift from seed to seed"
        )
    say(
        f"In brackets: {share} bootstrap intervals over the images of {counted(len(result.prompts), 'prompt')} x "
        f"{counted(len(result.seeds), 'seed')}{drift}."
    )
    reasons = dict.fromkeys(figure.no_interval for figure in result.figures if figure.no_interval)
    for reason in reasons:
        say(f"No interval: {reason}. Evaluate more images with --seeds N or --prompts FILE, or more real ones.")
    if result.skipped:
        click.echo("\nSkipped:")
    for skipped in result.skipped:
        say(f"  {skipped.what}: {skipped.why}. To measure it: {skipped.how}")


def _print_control(result: EvaluationResult) -> None:
    """Print for each kind of map whether images have what it shows."""
    rows = []
    for figure in result.control:
        shown = (figure.base, figure.own, figure.shuffled, figure.gap, figure.ceiling)
        cells = [_text(estimate) for estimate in shown]
        rows.append((figure.label, *cells, _text(figure.share_of_ceiling, digits=2)))
    click.echo()
    print_table(_CONTROL_HEADS, rows)
    say(
        f"Agreement with the maps of {counted(result.control[0].pictures, 'picture')} that were named, from 0 to 1, "
        "WITHOUT and WITH the ControlNet; SHUFFLED: shown the map of another picture; CEILING: the pictures themselves "
        "after the autoencoder. In brackets: intervals over the pictures."
    )


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
