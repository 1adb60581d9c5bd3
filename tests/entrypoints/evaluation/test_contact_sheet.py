"""The sheet of before and after says each prompt in letters that can be read."""

from collections.abc import Iterator

import pytest
from PIL import Image, ImageChops

from entrypoints.evaluation import contact_sheet as sheet
from entrypoints.evaluation.samples import IndexedImage
from orchestrator.contract import lettering
from orchestrator.contract.samples import SampleImage


@pytest.fixture(autouse=True)
def _no_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that has no font, as most containers."""
    monkeypatch.setattr(lettering, "FOLDERS", ())
    lettering.font_files.cache_clear()
    sheet._lettering.cache_clear()
    yield
    lettering.font_files.cache_clear()
    sheet._lettering.cache_clear()


def made(*prompts: str, title: str = "dreambooth: sks dog") -> Image.Image:
    samples = []
    for prompt in prompts:
        for source in ("before", "after"):
            about = SampleImage(file="1.png", source=source, prompt=prompt, text=prompt)
            samples.append(IndexedImage(Image.new("RGB", (64, 64), "red"), about))
    return sheet.contact_sheet(title, samples)


def label(page: Image.Image, row: int = 0) -> Image.Image:
    top = sheet.FIRST_ROW + row * sheet.PITCH
    return page.crop((0, top, sheet.FIRST_CELL, top + sheet.PITCH))


def note(page: Image.Image) -> Image.Image:
    return page.crop((0, page.height - sheet.MARGIN, page.width, page.height))


def is_blank(image: Image.Image) -> bool:
    return image.getcolors() == [(image.width * image.height, (255, 255, 255))]


def test_letters_without_a_font_are_codes_and_the_sheet_says_so_once() -> None:
    page = made("sks 犬", "a photo of sks dog")
    as_typed = made(r"sks \u72ac", "a photo of sks dog")
    difference = ImageChops.difference(label(page), label(as_typed)).getbbox()
    assert difference is None or difference[3] - difference[1] < 20  # the same letters, on their base line
    assert label(page).getbbox() is not None
    assert label(page, 1).tobytes() == label(as_typed, 1).tobytes()
    assert not is_blank(note(page))
    assert is_blank(note(as_typed))


def test_a_sheet_in_ascii_is_the_same_with_and_without_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    without = made("a photo of sks dog", "sks dog in the snow").tobytes()
    monkeypatch.undo()
    lettering.font_files.cache_clear()
    sheet._lettering.cache_clear()
    assert made("a photo of sks dog", "sks dog in the snow").tobytes() == without


@pytest.mark.parametrize("prompt", ["犬" * 300, "ж" * 300, "x" * 300, "sks " * 100, "कुत्ते " * 60, "कुत्ते" * 60])
def test_a_long_prompt_stays_in_its_label(prompt: str) -> None:
    short = made("a", "sks")
    page = made(prompt, "sks")
    cells = (sheet.FIRST_CELL, sheet.FIRST_ROW, page.width, page.height - sheet.MARGIN)
    assert page.crop(cells).tobytes() == short.crop(cells).tobytes()
    assert label(page, 1).tobytes() == label(short, 1).tobytes()


@pytest.mark.parametrize("title", ["a long title " * 30, "W" * 300, "犬 " * 90])
def test_a_title_that_is_too_long_ends_in_an_ellipsis_before_the_margin(title: str) -> None:
    page = made("sks dog", title=title)
    margin = page.crop((page.width - sheet.MARGIN, 0, page.width, sheet.REAL_TOP))
    assert is_blank(margin)
    short = made("sks dog", title="dreambooth: sks dog")
    assert page.crop((0, sheet.REAL_TOP, page.width, sheet.FIRST_ROW)) == short.crop(
        (0, sheet.REAL_TOP, page.width, sheet.FIRST_ROW)
    )


BEGINNING = "a detailed photo of sks dog " * 8


@pytest.mark.parametrize("beginning", [BEGINNING, "x" * 300, "犬" * 300], ids=["words", "letters", "codes"])
def test_long_prompts_that_begin_alike_are_told_apart_by_their_labels(beginning: str) -> None:
    page = made(beginning + "on a beach", beginning + "in the snow", "sks dog")
    assert label(page, 0).tobytes() != label(page, 1).tobytes()
    assert label(page, 2).tobytes() == label(made("sks dog")).tobytes()


def test_a_prompt_in_wide_letters_is_whole_beside_its_pictures() -> None:
    prompt = "SKS DOG WITH A WOMAN IN MOMBASA MARKET"
    widths = [sheet._lettering(sheet.LABEL_SIZE).width(line) for line in lines_of(prompt)]
    assert max(widths) <= sheet.LABEL_WIDTH
    assert " ".join(lines_of(prompt)) == prompt


def lines_of(prompt: str) -> list[str]:
    (lines,) = sheet._lettering(sheet.LABEL_SIZE).labels([prompt], sheet._LABEL)
    return lines
