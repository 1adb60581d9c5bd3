"""How commands print: tables for people, or for scripts one JSON value and nothing else on stdout."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
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


_SENTENCES = {"why", "cause", "memory", "cost", "quota", "stand-ins", "note"}
"""Names of facts whose values are for reading; any other may be a command, a path or code to copy."""


def print_json(value: object) -> None:
    """Print one JSON value."""
    text = json.dumps(value, indent=2)
    click.echo(text)


def say(text: str, *, keep: str = "", err: bool = False) -> None:
    """Print untrusted text for a person; the commands in it are shown as this program was called."""
    from orchestrator.cli.program import as_called

    click.echo(as_called(printable(text, keep=keep)), err=err)


def print_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    wraps: Iterable[str] = (),
    stacks: Iterable[str] = (),
) -> None:
    """Print rows under their heads, on a terminal in its width; `wraps` and `stacks` name the columns that may give.

    Columns in neither keep their cells whole: what a person may want to copy.
    """
    from orchestrator.cli.table import Table, table_lines

    shown = [list(map(printable, row)) for row in rows]
    table = Table(heads, shown, frozenset(wraps), frozenset(stacks))
    for line in table_lines(table, _columns()):
        click.echo(line)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line; on a terminal, values that are sentences wrap at their spaces."""
    from orchestrator.cli.table import wrapped

    longest = 0
    for name, _ in facts:
        longest = max(longest, len(name))
    columns = _columns()
    for name, value in facts:
        lines = [value]
        if columns is not None and name in _SENTENCES:
            lines = wrapped(value, columns - longest - 2)
        label = name
        for line in lines:
            padded = label.ljust(longest)
            say(f"{padded}  {line}".rstrip())
            label = ""


def _columns() -> int | None:
    """Return the columns of the terminal that stdout is, or None where it is none."""
    from orchestrator.cli.screen import size_of

    if not sys.stdout.isatty():
        return None
    return size_of(sys.stdout).columns


def print_warning(error: "OrchestratorError") -> None:
    """Print an error that does not end the command, on stderr."""
    say(f"Warning: {error.render()}", keep="\n", err=True)


def print_error(error: "OrchestratorError", *, as_json: bool) -> None:
    """Print an error: as text on stderr, or as JSON on stdout for a script that asked for JSON."""
    if not as_json:
        say(f"Error: {error.render()}", keep="\n", err=True)
        return
    problems = [problem.model_dump() for problem in error.problems]
    warnings = [warning.model_dump() for warning in error.warnings]
    body = {
        "kind": type(error).__name__,
        "message": error.message,
        "problems": problems,
        "warnings": warnings,
        "next": error.next_step,
    }
    print_json({"error": body})
