"""Tables as a person sees them on a terminal of any width, and as a script reads them."""

import sys

import pytest
from wcwidth import width as width_of

from orchestrator.cli.recipes import setting_rows
from orchestrator.cli.table import Table, table_lines, wrapped
from orchestrator.contract.recipe import recipe_class
from orchestrator.settings import Settings
from tests.cli.emulation import on_a_terminal

NAME = "dreambooth-a-name-that-one-has-to-copy-1af970ec6d"
FOLDER = f"/home/someone/.local/share/orchestrator/adapters/{NAME}"
PROMPT = 'dreambooth "a photo of sks dog on a beach in the evening sun" rank=16 steps=400'
JOBS = Table(
    ("JOB", "STATUS", "STEP", "SUBMITTED", "SETTINGS"),
    [
        (NAME, "InProgress", "120/300", "2026-11-25 23:27", PROMPT),
        ("short-0000000000", "Failed", "-", "-", "画像 " * 30),
    ],
    stacks=frozenset({"SETTINGS"}),
)
ADAPTERS = Table(("ADAPTER", "RECIPE", "LOCATION"), [(NAME, "dreambooth", FOLDER)])
FIELDS = Table(
    ("FIELD", "DEFAULT", "WHAT IT DOES"),
    setting_rows(recipe_class("dreambooth"), {}),
    wraps=frozenset({"WHAT IT DOES"}),
)


def lines(table: Table, width: int | None) -> list[str]:
    return list(table_lines(table, width))


@pytest.mark.parametrize("table", [JOBS, FIELDS], ids=["jobs", "fields"])
@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_line_is_longer_than_the_terminal_is_wide(table: Table, width: int) -> None:
    assert max(map(width_of, lines(table, width))) <= width


@pytest.mark.parametrize("table", [JOBS, ADAPTERS, FIELDS], ids=["jobs", "adapters", "fields"])
@pytest.mark.parametrize("width", [20, 60, 80, 140])
def test_no_word_is_broken_and_what_one_copies_is_whole(table: Table, width: int) -> None:
    words = {word for row in table.rows for cell in row for word in cell.split()}
    kept = {cell for row in table.rows for head, cell in zip(table.heads, row, strict=True) if head not in table.stacks}
    shown = lines(table, width)
    for line in shown:
        for word in line.split():
            assert word in words or word in " ".join(table.heads)
    for cell in kept:
        assert cell in " ".join(shown) or head_wraps(table, cell)


def head_wraps(table: Table, cell: str) -> bool:
    """Return whether a cell is of a column that wraps, where its words stand in several lines."""
    return any(row[table.heads.index(head)] == cell for head in table.wraps for row in table.rows)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_long_text_that_tells_rows_apart_is_never_cut(width: int) -> None:
    one, other = PROMPT, PROMPT.replace("steps=400", "steps=800")
    table = Table(("JOB", "STATUS", "SETTINGS"), [("a", "Failed", one), ("b", "Failed", other)], stacks=JOBS.stacks)
    shown = " ".join(" ".join(lines(table, width)).split())
    assert one in shown
    assert other in shown
    assert "SETTINGS" in shown


@pytest.mark.parametrize("table", [JOBS, ADAPTERS, FIELDS], ids=["jobs", "adapters", "fields"])
def test_in_a_pipe_each_row_is_one_whole_line(table: Table) -> None:
    _, *rows = lines(table, None)
    assert len(rows) == len(table.rows)
    for row, cells in zip(rows, table.rows, strict=True):
        assert [cell for cell in cells if cell.strip() not in row] == []


def test_words_wrap_at_spaces_and_long_ones_stay_whole() -> None:
    assert wrapped(f"from {FOLDER} to here", 12) == ["from", FOLDER, "to here"]


@pytest.mark.parametrize("columns", [60, 80])
def test_on_a_terminal_sentences_wrap_and_commands_stay_whole(columns: int) -> None:
    why = "Lowest hourly price among the types whose GPU is large enough: the job takes 1.4 GiB of GPU memory."
    load = f"pipe.load_lora_weights('{FOLDER}')"
    code = f"from orchestrator.cli.output import print_facts; print_facts([('why', {why!r}), ('load', {load!r})])"
    shown = on_a_terminal([sys.executable, "-c", code], columns).splitlines()
    assert shown[-1] == f"load  {load}"
    assert [line for line in shown[:-1] if len(line) > columns] == []
    assert " ".join(line[6:] for line in shown[:-1]) == why


@pytest.mark.parametrize("columns", [60, 80])
def test_a_plan_and_its_warnings_break_no_word_on_a_narrow_terminal(settings: Settings, columns: int) -> None:
    words = ("submit", "dreambooth", "--dry-run", "-s", "tuner=full", "-s", "rank=4")
    shown = on_a_terminal([sys.executable, "-m", "orchestrator", *words], columns)
    assert "Warning: " in shown
    too_long = [line for line in shown.splitlines() if width_of(line) > columns]
    values = [line.rpartition("  ")[2] for line in too_long]
    assert [value for value in values if not value.startswith("/")] == []  # a path is for copying


def test_a_message_wraps_on_a_narrow_terminal_and_its_commands_stay_whole() -> None:
    draw = f"python -m orchestrator adapters draw {NAME} a-prompt"
    message = f"  - The adapter of this job cannot be used, as some of its files were changed.\\nNext: {draw}"
    code = f"from orchestrator.cli.output import say; say('{message}', keep=chr(10), err=True)"
    *sentence, command = on_a_terminal([sys.executable, "-c", code], 60).splitlines()
    assert command == f"Next: {draw}"
    assert len(sentence) == 2
    assert all(line.startswith("  ") and len(line) <= 60 for line in sentence)
