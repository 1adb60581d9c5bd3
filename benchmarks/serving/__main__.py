"""Measure the rows of the table, keep what they find, and rewrite the section of docs/benchmarks.md.

A row can be measured again alone: the others keep their latest results. Run from the repository's root:
python -m benchmarks.serving [--rows NAME ...]
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import report

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # entrypoints: reached by path, never installed

from entrypoints.runtime import libraries  # noqa: E402

libraries.apply_settings()

import torch  # noqa: E402

from benchmarks.serving.materials import Materials  # noqa: E402
from benchmarks.serving.page import TITLE, section  # noqa: E402
from benchmarks.serving.results import Kept, Row  # noqa: E402
from benchmarks.serving.rows import ROWS  # noqa: E402


def main(words: Sequence[str] | None = None) -> None:
    """Measure the rows that were asked for; the exit status is 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="small numbers, to try it out; the page stays as it is")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "serving", help="folder that keeps the results")
    parser.add_argument("--page", type=Path, default=report.PAGE, help="page whose section is rewritten")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    libraries.quieten()
    # This process is also the client, and a look of the collector through all that torch has made takes half a second.
    gc.freeze()
    kept = Kept(options.work)
    with tempfile.TemporaryDirectory() as folder, Materials(Path(folder), quick=options.quick) as materials:
        for name in options.rows:
            row = measured(name, materials)
            if not options.quick:
                kept.keep(row)
            print("\n".join(lines_of(row)), flush=True)
    rows = [row for row in map(kept.find, ROWS) if row is not None]
    if options.quick:
        return
    missing = [name for name in ROWS if name not in {row.name for row in rows}]
    if missing:
        print(f"not measured yet: {', '.join(missing)}")
    report.write_section(TITLE, section(rows), options.page)
    if missing or not all(row.is_met for row in rows):
        sys.exit(1)


def measured(name: str, materials: Materials) -> Row:
    """Measure a row."""
    load, _, _ = os.getloadavg()
    date = datetime.now(UTC)
    began = time.monotonic()
    found = ROWS[name].function(materials)
    return Row(
        name=name,
        found=found,
        quick=materials.quick,
        date=f"{date:%Y-%m-%d %H:%M}",
        seconds=time.monotonic() - began,
        load=load,
        commit=commit(),
    )


def commit() -> str:
    """Return the short hash of what is checked out, with a plus when code was changed."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"


def lines_of(row: Row) -> list[str]:
    """Return what is printed of a row."""
    lines = [f"{row.name}: {row.seconds:.0f} s, load {row.load:.1f}"]
    for figure in row.found.figures:
        bar = f" (bar {figure.bar_text}: {figure.verdict})" if figure.bar is not None else ""
        lines.append(f"  {figure.what}: {figure.value_text}{bar}")
    for note in row.found.notes:
        lines.append(f"  {note}")
    return lines


if __name__ == "__main__":
    main()
