"""From the contact sheets of adapters to one of all: no pixel is changed, and a stranger's file does no harm."""

import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from struct import pack

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from entrypoints.evaluation.before_and_after import Evaluation
from entrypoints.evaluation.contact_sheet import TILE, contact_sheet, sheet_layout
from orchestrator.contract.adapter import CONTACT_SHEET_FILE
from orchestrator.contract.contact_sheet import LAYOUT_KEY, SheetLayout, SheetRow
from orchestrator.sweeps.drawing import WIDEST, draw_sweep
from orchestrator.sweeps.sheets import Column, SheetError, read_sheet
from tests.sweeps.seeking import BEST, FAINT, INK, SHADE, places, written

PROMPTS = ("on red", "on blue")


def picture(*colour: int) -> Image.Image:
    """Return a picture that is like no other of another colour, and not uniform."""
    image = Image.new("RGB", (TILE, TILE), colour)
    image.paste((0, 0, 0), (0, 0, 9, 9))
    return image


def tiles(seed: int, count: int) -> list[Image.Image]:
    return [picture(seed, 20 + number, 200) for number in range(count)]


def sheet_file(
    folder: Path, seed: int, *, base: int = 1, prompts: tuple[str, ...] = PROMPTS, seeds: int = 2, word: str = "sks"
) -> bytes:
    """Write a sheet as training does, and return its bytes."""
    rows = [SheetRow(prompt=f"{word} {prompt}", text=prompt) for prompt in prompts]
    layout = sheet_layout("dreambooth: sks dog", rows, 1, seeds)
    count = len(prompts) * seeds
    sheet = contact_sheet(layout, [picture(9, 9, 9)], tiles(base, count), tiles(seed, count))
    Evaluation({}, sheet, layout).save_sheet(folder)
    return (folder / CONTACT_SHEET_FILE).read_bytes()


def column(folder: Path, seed: int, similarity: float = 0.5, **how: object) -> Column:
    settings: Mapping[str, str] = {"rank": str(seed), "alpha": "1"}
    metrics = {"subject_similarity_after": similarity, "subject_similarity_before": 0.1}
    return Column(settings, metrics, read_sheet(sheet_file(folder, seed, **how)))  # type: ignore[arg-type]


def test_a_sheet_is_cut_into_the_pictures_it_was_made_of(tmp_path: Path) -> None:
    sheet = read_sheet(sheet_file(tmp_path, 7))
    assert [row.prompt for row in sheet.rows] == ["sks on red", "sks on blue"]
    assert [one.tobytes() for one in sheet.real] == [picture(9, 9, 9).tobytes()]
    for strips, seed in ((sheet.before, 1), (sheet.after, 7)):
        cut = [one.tobytes() for text in PROMPTS for one in strips[text]]
        assert cut == [one.tobytes() for one in tiles(seed, 4)]


def test_equal_sheets_are_equal_files(tmp_path: Path) -> None:
    assert sheet_file(tmp_path, 7) == sheet_file(tmp_path, 7)


def lefts_and_tops(page: Image.Image, seed: int, count: int = 4) -> list[tuple[int, int]]:
    found = [places(page, one) for one in tiles(seed, count)]
    assert [len(at) for at in found] == [1] * count
    return [at[0] for at in found]


def test_adapters_stand_side_by_side_below_what_tells_them_apart(tmp_path: Path) -> None:
    page = draw_sweep([column(tmp_path, 4, 0.5), column(tmp_path, 8, 0.625)])
    blocks = [lefts_and_tops(page, seed) for seed in (1, 4, 8)]  # the base model once, then each adapter
    assert [[top for _, top in block] for block in blocks] == [[top for _, top in blocks[0]]] * 3
    assert [block[0][0] for block in blocks] == sorted(block[0][0] for block in blocks)
    for words, ink, block in (("rank", FAINT, 1), ("4", INK, 1), ("rank", FAINT, 2), ("8", INK, 2)):
        heads = [left for left, top in places(page, written(words, ink)) if top < blocks[0][0][1]]
        start, end = blocks[block][0][0], blocks[block][1][0] + TILE
        assert [left for left in heads if start <= left < end], words
    assert len(places(page, written("before", FAINT, paper=SHADE))) == 1


def test_a_row_shows_each_adapter_that_answers_its_prompt(tmp_path: Path) -> None:
    page = draw_sweep([column(tmp_path, 4), column(tmp_path, 8, prompts=("on blue", "on green"))])
    (red, blue), (other_blue, green) = (sorted({top for _, top in lefts_and_tops(page, seed)}) for seed in (4, 8))
    assert red < blue == other_blue < green


def test_the_base_models_block_has_every_row_that_any_adapter_has(tmp_path: Path) -> None:
    page = draw_sweep([column(tmp_path, 4), column(tmp_path, 8, prompts=(*PROMPTS, "on green"))])
    assert [top for _, top in lefts_and_tops(page, 1, 6)] == [top for _, top in lefts_and_tops(page, 8, 6)]


def test_other_words_for_the_subject_share_their_rows(tmp_path: Path) -> None:
    page = draw_sweep([column(tmp_path, 4), column(tmp_path, 8, word="zwx")])
    assert lefts_and_tops(page, 4)[0][1] == lefts_and_tops(page, 8)[0][1]


def test_base_models_that_drew_other_pictures_have_blocks_of_their_own(tmp_path: Path) -> None:
    page = draw_sweep([column(tmp_path, 4), column(tmp_path, 8, base=2), column(tmp_path, 16)])
    order = {seed: lefts_and_tops(page, seed)[0][0] for seed in (1, 4, 16, 2, 8)}
    assert list(order.values()) == sorted(order.values())


def test_more_pictures_than_a_person_can_see_are_fewer_of_each_prompt(tmp_path: Path) -> None:
    page = draw_sweep([column(tmp_path, seed, seeds=16) for seed in range(4, 9)])
    assert page.width <= WIDEST
    shown = {seed: [len(places(page, one)) for one in tiles(seed, 16)] for seed in (4, 8)}
    assert shown[4] == shown[8] == sorted(shown[4], reverse=True)
    assert set(shown[4]) == {0, 1}


def with_text(image: Image.Image, text: str) -> bytes:
    info, file = PngInfo(), BytesIO()
    info.add_itxt(LAYOUT_KEY, text)
    image.save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """Return the beginning of a PNG that says how wide and high it is."""
    chunks = [b"IHDR" + pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"IDAT"]
    written = [pack(">I", len(chunk) - 4) + chunk + pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def layout(**changes: object) -> str:
    rows = [SheetRow(prompt="a", text="a")]
    return SheetLayout.model_validate({**sheet_layout("t", rows, 1, 1).model_dump(), **changes}).model_dump_json()


SMALL = Image.new("RGB", (64, 64))
HOSTILE = {
    "no picture": b"hello",
    "cut off": with_text(Image.effect_noise((900, 900), 90), layout())[:30000],
    "a bomb": bomb(60000),
    "an empty layout": with_text(SMALL, "{}"),
    "another layout": with_text(SMALL, '{"format": 2}'),
    "pictures outside of it": with_text(SMALL, layout()),
    "pictures of no end": with_text(SMALL, layout().replace('"columns":1', '"columns":1000000')),
}


def test_a_picture_of_too_many_pixels_is_refused_by_its_header() -> None:
    with pytest.raises(SheetError, match="megapixels"):
        read_sheet(bomb(8000))


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_is_no_sheet_is_refused(what: str) -> None:
    with pytest.raises(SheetError):
        read_sheet(HOSTILE[what])


def test_a_sheet_of_an_older_version_says_so(tmp_path: Path) -> None:
    SMALL.save(tmp_path / "old.png")
    with pytest.raises(SheetError, match="older version"):
        read_sheet((tmp_path / "old.png").read_bytes())


def test_the_best_figure_of_the_adapters_stands_out(tmp_path: Path) -> None:
    one, two = column(tmp_path, 4, 0.5), column(tmp_path, 8, 0.75)
    page, other = draw_sweep([one, two]), draw_sweep([one._replace(metrics={"subject_similarity_after": 0.9}), two])
    colours = [{colour for _, colour in part.getcolors(1 << 24) or []} for part in halves(page) + halves(other)]
    assert [BEST in found for found in colours] == [False, True, True, False]


def halves(page: Image.Image) -> list[Image.Image]:
    """Return what is below the block of each of two adapters."""
    start = places(page, tiles(8, 1)[0])[0][0]
    return [page.crop((0, 0, start, page.height)), page.crop((start, 0, page.width, page.height))]
