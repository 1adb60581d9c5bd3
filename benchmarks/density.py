"""How dense the code is: syntax nodes in a line, comprehensions in a hundred lines, functions that are too long.

Code that reads in order, one idea a line, has few of either: httpx 0.28 has 5.0 and 0.8 by the same count. `make check`
prints the figures and fails above the limits.
"""

import ast
import sys
from pathlib import Path
from typing import NamedTuple

FOLDERS = ("orchestrator", "entrypoints")
MOST_NODES = 6.5  # in a line
MOST_COMPREHENSIONS = 2.0  # in a hundred lines
MOST_LINES = 50  # of a function, docstring included
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Density(NamedTuple):
    """What was counted in some files."""

    lines: int
    """Lines that are neither blank nor a comment."""
    nodes: int
    """Nodes of the syntax tree, as `ast.walk` yields them."""
    comprehensions: int
    """Comprehensions and generator expressions."""
    long_functions: tuple[str, ...]
    """Functions of more than MOST_LINES lines, as "path:name"."""


def density(paths: list[Path]) -> Density:
    """Count the nodes, lines and long functions of some Python files."""
    lines = nodes = comprehensions = 0
    long_functions: list[str] = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines():
            if line.strip() and not line.strip().startswith("#"):
                lines += 1
        for node in ast.walk(ast.parse(text)):
            nodes += 1
            if isinstance(node, COMPREHENSIONS):
                comprehensions += 1
            if isinstance(node, ast.FunctionDef) and _lines_of(node) > MOST_LINES:
                long_functions.append(f"{path}:{node.name}")
    return Density(lines, nodes, comprehensions, tuple(long_functions))


def _lines_of(function: ast.FunctionDef) -> int:
    last = function.end_lineno or function.lineno
    return last - function.lineno + 1


def main(folders: list[str]) -> int:
    """Print the figures of each folder and of all together; return 1 when these are above the limits."""
    everything: list[Path] = []
    for folder in folders or FOLDERS:
        paths = sorted(Path(folder).rglob("*.py"))
        everything += paths
        _print(folder, density(paths))
    total = density(everything)
    _print("together", total)
    for name in total.long_functions:
        print(f"  more than {MOST_LINES} lines: {name}")
    too_dense = total.nodes > MOST_NODES * total.lines
    too_nested = 100 * total.comprehensions > MOST_COMPREHENSIONS * total.lines
    if too_dense or too_nested:
        print(f"  the limits are {MOST_NODES} nodes a line and {MOST_COMPREHENSIONS} comprehensions in 100 lines")
    return int(too_dense or too_nested or bool(total.long_functions))


def _print(name: str, found: Density) -> None:
    nodes = found.nodes / found.lines
    comprehensions = 100 * found.comprehensions / found.lines
    print(f"{name}: {nodes:.2f} syntax nodes a line, {comprehensions:.2f} comprehensions in 100 lines")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
