"""The benchmark of the server: each row measures what it says, with small numbers, and the page shows all of it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import report
from benchmarks.serving import __main__ as program
from benchmarks.serving.materials import Materials
from benchmarks.serving.page import section
from benchmarks.serving.results import MET, MISSED, Figure, Found, Kept, Row
from benchmarks.serving.rows import ROWS
from benchmarks.serving.soundness import Alone, Answered, Asked, Names, is_wrong, strong_adapters
from benchmarks.serving.traces import moments, zipf_names

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of diffusers, on the other side
SOUND = {"parity", "batch", "base-weights", "wrong-answers", "ending", "hostile", "fuzzed"}
"""Rows whose bars do not depend on how fast the machine is."""


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Materials]:
    torch.set_num_threads(1)
    with Materials(tmp_path_factory.mktemp("materials"), quick=True) as materials:
        yield materials


@pytest.mark.parametrize("name", ROWS)
def test_every_row_finds_figures_and_the_sound_ones_meet_their_bars(name: str, materials: Materials) -> None:
    row = program.measured(name, materials)
    assert any(figure.bar is not None for figure in row.found.figures)
    assert all(np.isfinite(figure.value) for figure in row.found.figures)
    assert row.found.notes
    for figure in row.found.figures:
        if name in SOUND and not figure.unit:
            assert figure.is_met, figure


def a_row(name: str, value: float = 1.0) -> Row:
    figures = (Figure(what="times as fast", value=value, unit="x", bar=2, at_least=True),)
    found = Found(figures=figures, notes=("ours 1 ms, theirs 2 ms.",))
    return Row(name=name, found=found, quick=False, date="2026-01-01 00:00", seconds=1, load=0.5, commit="abc")


def test_a_figure_is_judged_in_its_direction_and_one_without_a_bar_never() -> None:
    assert Figure(what="", value=2.1, bar=2, at_least=True).verdict == MET
    assert Figure(what="", value=1.9, bar=2, at_least=True).verdict == MISSED
    assert Figure(what="", value=1.9, bar=2).verdict == MET
    assert Figure(what="", value=2.1, bar=2).verdict == MISSED
    assert Figure(what="", value=2.1).verdict == ""


def test_the_page_shows_figures_that_fall_short_beside_the_others() -> None:
    text = section([a_row("eight", 2.5), a_row("zipf", 1.5)])
    assert "| times as fast | 2.5x | >= 2x | met |" in text
    assert "| times as fast | 1.5x | >= 2x | MISSED |" in text
    assert "1 of 2 rows meet all their bars" in text
    assert text.count("ours 1 ms, theirs 2 ms.") == 2


def test_a_row_is_measured_again_alone_and_the_page_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "benchmarks.md"
    monkeypatch.setattr(report, "PAGE", page)
    kept = Kept(tmp_path / "work")
    for name in ROWS:
        kept.keep(a_row(name, 2.5))
    program.main(["--work", str(tmp_path / "work"), "--page", str(page), "--rows"])
    assert page.read_text().count("2.5x") == len(ROWS)
    kept.keep(a_row("zipf", 1.5))
    with pytest.raises(SystemExit):
        program.main(["--work", str(tmp_path / "work"), "--page", str(page), "--rows"])
    assert page.read_text().count("1.5x") == 1
    assert page.read_text().count("\n## Serving") == 1


def test_wrong_adapters_and_wrong_pictures_are_noticed(materials: Materials) -> None:
    versions = strong_adapters(materials, 3)
    first, second, third = versions
    alone = Alone(materials, versions)
    names = Names()
    names.changes("dog", first, 0.0)
    names.changed("dog", 1.0)
    names.changes("dog", second, 5.0)
    names.changed("dog", 6.0)
    asked = Asked((("dog", 1.0),), 0, 1, 1.0)

    def answer(sent: float, received: float, says: str, shows: str) -> Answered:
        return Answered(asked, sent, received, 200, (says,), alone.picture(asked, (shows,)))

    assert not is_wrong(answer(2.0, 3.0, first, first), names, alone)
    assert not is_wrong(answer(2.0, 5.5, second, second), names, alone)
    assert is_wrong(answer(2.0, 3.0, first, second), names, alone)
    assert is_wrong(answer(2.0, 3.0, second, second), names, alone)
    assert is_wrong(answer(7.0, 8.0, first, first), names, alone)
    assert is_wrong(answer(2.0, 8.0, third, third), names, alone)
    missing = Answered(asked, 2.0, 3.0, 422, (), None)
    assert is_wrong(missing, names, alone)
    assert not is_wrong(missing._replace(sent=0.5), names, alone)


def test_traces_are_what_they_are_called() -> None:
    names = zipf_names(200, 2000)
    assert names.count("0") > 3 * names.count("9") > 0
    arrivals = moments(2000, 4.0, 1)
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] == pytest.approx(500, rel=0.1)
