"""The section of docs/benchmarks.md."""

import textwrap
from collections.abc import Sequence
from importlib.metadata import version

from benchmarks.serving.results import Row
from benchmarks.serving.rows import ROWS

TITLE = "Serving"
WIDTH = 120
HEAD = """\
| measure | | figure | bar | |
| --- | --- | --- | --- | --- |"""
INTRODUCTION = """\
By `make bench-serving`, on the CPU with one torch thread, ours and what it is compared with in turns in one run,
medians unless it says otherwise. The built-in model is drawn with by its defaults; the smallest one is a U-Net of
two levels with random weights (`tests/entrypoints/tiny.py`), where almost all time is Python's. Adapters are LoRAs
of rank 8 on all linear layers and convolutions. "Load and unload for each request" is plain diffusers:
`load_lora_weights`, a call, `unload_lora_weights`; "all resident" is plain diffusers with all adapters loaded
beforehand and `set_adapters` before each call. A serial server is ours with room for one image at a time. Ratios
above 1 against a baseline are times as fast. On a GPU the cost of Python hides behind the device, and batches gain
less: none of this says how much."""


def section(rows: Sequence[Row]) -> str:
    """Return the table of all rows, and below it where the figures come from."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "peft", "transformers"))
    lines = [textwrap.fill(INTRODUCTION, WIDTH, break_on_hyphens=False), "", HEAD]
    for row in rows:
        title = ROWS[row.name].title
        for figure in row.found.figures:
            lines.append(f"| {title} | {figure.what} | {figure.value_text} | {figure.bar_text} | {figure.verdict} |")
            title = ""
    met = sum(row.is_met for row in rows)
    lines += ["", f"{met} of {len(rows)} rows meet all their bars. {libraries}.", ""]
    for row in rows:
        lines += [note_of(row), ""]
    return "\n".join(lines)


def note_of(row: Row) -> str:
    """Return what stands below the table about a row."""
    measured = f"Measured {row.date} UTC at {row.commit}, load {row.load:.1f}."
    text = " ".join([f"**{ROWS[row.name].title}.**", *row.found.notes, measured])
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
