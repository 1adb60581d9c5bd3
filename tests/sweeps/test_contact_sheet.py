"""From the images of adapters to one sheet of all: each image unchanged, side by side with those it belongs to."""

from collections.abc import Iterator

import pytest
from PIL import Image

from orchestrator.contract import lettering
from orchestrator.contract.samples import CELL
from orchestrator.sweeps import layout
from orchestrator.sweeps.contact_sheet import render_contact_sheet
from orchestrator.sweeps.layout import WIDEST
from orchestrator.sweeps.samples import Column, Rows, Samples
from tests.sweeps.seeking import BEST, FAINT, INK, SHADE, places, written

PROMPTS = ("on red", "on blue")


def cell(*colour: int) -> Image.Image:
    """Return a cell that is like no other of another colour, and not uniform."""
    image = Image.new("RGB", (CELL, CELL), colour)
    image.paste((0, 0, 0), (0, 0, 9, 9))
    return image


def cells(seed: int, count: int) -> list[Image.Image]:
    return [cell(seed, 20 + number, 200) for number in range(count)]


def rows(images: list[Image.Image], prompts: tuple[str, ...]) -> Rows:
    seeds = len(images) // len(prompts)
    return {text: images[row * seeds : (row + 1) * seeds] for row, text in enumerate(prompts)}


def column(
    seed: int,
    fidelity: float = 0.5,
    *,
    base: int = 1,
    prompts: tuple[str, ...] = PROMPTS,
    seeds: int = 2,
    word: str = "sks",
) -> Column:
    count = len(prompts) * seeds
    samples = Samples(
        prompts={text: f"{word} {text}" for text in prompts},
        real=[cell(9, 9, 9)],
        before=rows(cells(base, count), prompts),
        after=rows(cells(seed, count), prompts),
    )
    metrics = {"subject_fidelity_after": fidelity, "subject_fidelity_before": 0.1}
    return Column("dreambooth: sks dog", {"rank": str(seed), "alpha": "1"}, metrics, samples)


def lefts_and_tops(page: Image.Image, seed: int, count: int = 4) -> list[tuple[int, int]]:
    found = [places(page, one) for one in cells(seed, count)]
    assert [len(at) for at in found] == [1] * count
    return [at[0] for at in found]


def test_adapters_stand_side_by_side_below_what_tells_them_apart() -> None:
    page = render_contact_sheet([column(4, 0.5), column(8, 0.625)])
    blocks = [lefts_and_tops(page, seed) for seed in (1, 4, 8)]  # the base model once, then each adapter
    assert [[top for _, top in block] for block in blocks] == [[top for _, top in blocks[0]]] * 3
    assert [block[0][0] for block in blocks] == sorted(block[0][0] for block in blocks)
    for words, ink, block in (("rank", FAINT, 1), ("4", INK, 1), ("rank", FAINT, 2), ("8", INK, 2)):
        heads = [left for left, top in places(page, written(words, ink)) if top < blocks[0][0][1]]
        start, end = blocks[block][0][0], blocks[block][1][0] + CELL
        assert [left for left in heads if start <= left < end], words
    assert len(places(page, written("before", FAINT, paper=SHADE))) == 1


def test_a_row_shows_each_adapter_that_answers_its_prompt() -> None:
    page = render_contact_sheet([column(4), column(8, prompts=("on blue", "on green"))])
    (red, blue), (other_blue, green) = (sorted({top for _, top in lefts_and_tops(page, seed)}) for seed in (4, 8))
    assert red < blue == other_blue < green


def test_the_base_models_block_has_every_row_that_any_adapter_has() -> None:
    page = render_contact_sheet([column(4), column(8, prompts=(*PROMPTS, "on green"))])
    assert [top for _, top in lefts_and_tops(page, 1, 6)] == [top for _, top in lefts_and_tops(page, 8, 6)]


def test_other_words_for_the_subject_share_their_rows() -> None:
    page = render_contact_sheet([column(4), column(8, word="zwx")])
    assert lefts_and_tops(page, 4)[0][1] == lefts_and_tops(page, 8)[0][1]


def test_base_models_that_drew_other_pictures_have_blocks_of_their_own() -> None:
    page = render_contact_sheet([column(4), column(8, base=2), column(16)])
    order = {seed: lefts_and_tops(page, seed)[0][0] for seed in (1, 4, 16, 2, 8)}
    assert list(order.values()) == sorted(order.values())


def test_more_pictures_than_a_person_can_see_are_fewer_of_each_prompt() -> None:
    page = render_contact_sheet([column(seed, seeds=16) for seed in range(4, 9)])
    assert page.width <= WIDEST
    shown = {seed: [len(places(page, one)) for one in cells(seed, 16)] for seed in (4, 8)}
    assert shown[4] == shown[8] == sorted(shown[4], reverse=True)
    assert set(shown[4]) == {0, 1}


def test_the_best_figure_of_the_adapters_stands_out() -> None:
    one, two = column(4, 0.5), column(8, 0.75)
    page, other = (
        render_contact_sheet([one, two]),
        render_contact_sheet([one._replace(metrics={"subject_fidelity_after": 0.9}), two]),
    )
    assert has_green(page) == [False, True]
    assert has_green(other) == [True, False]


@pytest.mark.parametrize(("figure", "stands_out"), [(0.57949, True), (0.579, True), (0.5784, False)])
def test_figures_that_read_the_same_stand_out_together(figure: float, stands_out: bool) -> None:
    assert has_green(render_contact_sheet([column(4, figure), column(8, 0.57949)])) == [stands_out, True]


def has_green(page: Image.Image) -> list[bool]:
    """Return below which of the blocks of two adapters a figure is green."""
    colours = [{colour for _, colour in part.getcolors(1 << 24) or []} for part in halves(page)]
    return [BEST in found for found in colours]


def halves(page: Image.Image) -> list[Image.Image]:
    """Return what is below the block of each of two adapters."""
    start = places(page, cells(8, 1)[0])[0][0]
    return [page.crop((0, 0, start, page.height)), page.crop((start, 0, page.width, page.height))]


@pytest.mark.parametrize("size", [1, 3])
def test_the_training_pictures_stand_on_top(size: int) -> None:
    one = column(4)
    pictures = [cell(9, 9, number) for number in range(size)]
    page = render_contact_sheet([one._replace(samples=one.samples._replace(real=pictures)), column(8)])
    tops = [places(page, picture)[0][1] for picture in pictures]
    assert max(tops) < lefts_and_tops(page, 4)[0][1]


@pytest.fixture
def _no_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without fonts: Pillow's own has ASCII."""
    monkeypatch.setattr(lettering, "FOLDERS", ())
    lettering.font_files.cache_clear()
    layout.lettering.cache_clear()
    yield
    lettering.font_files.cache_clear()
    layout.lettering.cache_clear()


@pytest.mark.usefixtures("_no_fonts")
def test_letters_that_no_font_has_are_written_as_codes() -> None:
    columns = [column(4), column(8)]
    wide = [one._replace(settings={"rank": "4", "alpha": "犬"}) for one in columns]
    page = render_contact_sheet(wide)
    assert len(places(page, written(r"\u72ac", INK))) == 2
    assert not places(page, written("犬", INK))


@pytest.mark.parametrize("value", ["собака", "犬" * 30, "e\u0301te\u0301", "كلب sks"], ids=ascii)
def test_letters_beyond_ascii_stay_off_the_pictures(value: str) -> None:
    plain = [column(4), column(8)]
    wide = [one._replace(settings={**one.settings, "alpha": value}) for one in plain]
    labelled = [column(seed, prompts=(value, "on blue")) for seed in (4, 8)]
    for columns in (wide, labelled):
        page = render_contact_sheet(columns)
        for seed in (1, 4, 8):
            lefts_and_tops(page, seed)  # each picture is whole


def test_a_title_that_is_too_long_ends_before_the_margin() -> None:
    columns = [column(4), column(8)]
    page = render_contact_sheet([one._replace(title="dreambooth: " + "a long subject " * 30) for one in columns])
    margin = page.crop((page.width - layout.MARGIN, 0, page.width, layout.REAL_TOP))
    assert margin.getcolors() == [(margin.width * margin.height, (255, 255, 255))]


def test_long_prompts_that_begin_alike_are_told_apart_by_their_labels() -> None:
    beginning = "a detailed photo of sks dog " * 8
    prompts = (beginning + "on a beach", beginning + "in the snow")
    page = render_contact_sheet([column(4, prompts=prompts), column(8, prompts=prompts)])
    tops = sorted({top for _, top in lefts_and_tops(page, 4)})
    one, other = (page.crop((0, top, layout.FIRST_BLOCK, top + CELL)) for top in tops)
    assert one.tobytes() != other.tobytes()
