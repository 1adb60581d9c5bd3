"""The page the benchmarks write: one section each, replaced as a whole."""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_HEAD = """\
# Benchmarks

Written by `make bench`, `make bench-kill`, `make bench-serving`, `python -m benchmarks.watchdog` and
`python -m benchmarks.beside_diffusers`, `python -m benchmarks.beside_trl`.
Ratios travel between machines, seconds do not.
"""


def write_section(title: str, body: str, page: Path | None = None) -> None:
    """Replace the section `title` of a page, by default docs/benchmarks.md, or add it."""
    page = page or PAGE
    text = page.read_text() if page.exists() else _HEAD
    section = f"## {title}\n\n{body.strip()}\n\n{_machine()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    found = pattern.search(text)
    page.write_text(text.replace(found.group(), section + "\n") if found else f"{text.rstrip()}\n\n{section}")


def _machine() -> str:
    cores, machine = os.cpu_count(), platform.machine()
    return f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {cores} cores, {machine}."
