"""How commands print: tables for people, or for scripts one JSON value and nothing else on stdout."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from orchestrator.terminal import printable, shortened

if TYPE_CHECKING:
    from orchestrator.errors import OrchestratorError

json_option: Callable[[Any], Any] = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON, for scripts.",
)


_SENTENCES = {
    "base model",
    "cause",
    "cost",
    "disk",
    "expected",
    "images",
    "instance",
    "log",
    "measured by",
    "memory",
    "note",
    "quota",
    "recipe",
    "settings",
    "stand-ins",
    "status",
    "storage",
    "trained on",
    "under way",
    "why",
}
"""Names of facts whose values are for reading, unless they are a path; any other may be a command or code to copy."""
_PATHS = ("/", "s3:")
"""How the values of facts begin that are a path or a URI."""


def print_json(value: object) -> None:
    """Print one JSON value."""
    text = json.dumps(value, indent=2)
    click.echo(text)


def setting_text(value: object) -> str:
    """Return the value of a setting in a line, and a list of those that have settings of their own in short forms."""
    if isinstance(value, tuple) and value and not isinstance(value[0], str):
        return ", ".join(str(item) for item in value)
    return str(value)


def say(text: str, *, keep: str = "", err: bool = False) -> None:
    """Print untrusted text for a person; the commands in it are shown as this program was called.

    On a terminal, stderr wraps at spaces; stdout may be code to copy.
    """
    from orchestrator.cli.program import as_called

    shown = as_called(printable(text, keep=keep))
    if err:
        shown = in_width(shown, sys.stderr)
    click.echo(shown, err=err)


def in_width(text: str, stream: TextIO) -> str:
    """Return text whose lines wrap at spaces, if the stream is a terminal; a line with a command stays whole."""
    from orchestrator.cli.program import program
    from orchestrator.cli.table import wrapped

    columns = _columns(stream)
    if columns is None:
        return text
    lines = []
    for line in text.split("\n"):
        if f"{program()} " in line or line.startswith("Next: "):
            lines.append(line)
            continue
        words = line.lstrip(" ")
        indent = " " * (len(line) - len(words))
        for part in wrapped(words, columns - len(indent)):
            lines.append(indent + part)
    return "\n".join(lines)


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
    for line in table_lines(table, _columns(sys.stdout)):
        click.echo(line)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line; on a terminal, values that are sentences wrap at their spaces."""
    from orchestrator.cli.table import wrapped

    longest = 0
    for name, _ in facts:
        longest = max(longest, len(name))
    columns = _columns(sys.stdout)
    for name, value in facts:
        lines = [value]
        is_sentence = name in _SENTENCES or name.endswith("prompt")
        if columns is not None and is_sentence and not value.startswith(_PATHS):
            lines = wrapped(value, columns - longest - 2)
        label = name
        for line in lines:
            padded = label.ljust(longest)
            say(f"{padded}  {line}".rstrip())
            label = ""


def _columns(stream: TextIO) -> int | None:
    """Return the columns of the terminal that a stream is, or None where it is none."""
    from orchestrator.cli.screen import size_of

    if not stream.isatty():
        return None
    return size_of(stream).columns


def print_warning(error: "OrchestratorError") -> None:
    """Print an error that does not end the command, on stderr."""
    say(f"Warning: {shortened(error.render())}", keep="\n", err=True)


def print_error(error: "OrchestratorError", *, as_json: bool) -> None:
    """Print an error: as text on stderr, or as JSON on stdout for a script that asked for JSON."""
    if not as_json:
        say(f"Error: {shortened(error.render())}", keep="\n", err=True)
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
