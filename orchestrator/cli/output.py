"""How commands print: tables for people, or for scripts one JSON value and nothing else on stdout."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.terminal import printable

if TYPE_CHECKING:
    from orchestrator.errors import OrchestratorError

json_option: Callable[[Any], Any] = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON, for scripts.",
)


def print_json(value: object) -> None:
    """Print one JSON value."""
    text = json.dumps(value, indent=2)
    sys.stdout.write(f"{text}\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their column heads, each column as wide as its longest cell."""
    lines: list[list[str]] = []
    widths = [0] * len(columns)
    for row in [columns, *rows]:
        cells = list(map(printable, row))
        lengths = map(len, cells)
        widths = list(map(max, widths, lengths))
        lines.append(cells)
    for cells in lines:
        padded = map(str.ljust, cells, widths)
        click.echo("  ".join(padded).rstrip())


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    width = 0
    for name, _ in facts:
        width = max(width, len(name))
    for name, value in facts:
        padded = name.ljust(width)
        line = f"{padded}  {printable(value)}"
        click.echo(line.rstrip())


def print_warning(error: "OrchestratorError") -> None:
    """Print an error that does not end the command, on stderr."""
    text = printable(f"Warning: {error.render()}", keep="\n")
    click.echo(text, err=True)


def print_error(error: "OrchestratorError", *, as_json: bool) -> None:
    """Print an error: as text on stderr, or as JSON on stdout for a script that asked for JSON."""
    if not as_json:
        text = printable(f"Error: {error.render()}", keep="\n")
        click.echo(text, err=True)
        return
    problems = [problem.model_dump() for problem in error.problems]
    body = {
        "kind": type(error).__name__,
        "message": error.message,
        "problems": problems,
        "next": error.next_step,
    }
    print_json({"error": body})
