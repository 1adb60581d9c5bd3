"""Letters of every script are written in a font that has them, or as codes; never as boxes, never over the pictures."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import ImageFont

from orchestrator.contract import lettering
from orchestrator.contract.lettering import (
    Lettering,
    Room,
    clusters,
    escape,
    font_files,
    load_fonts,
)

ASCII = "".join(map(chr, range(32, 127)))
CYRILLIC = "собака"
ARABIC = "كلب"
HEBREW = "שלום"
KANJI = "砂浜の犬写真"


class Stub:
    """A font of some letters, each 10 pixels wide; the others are boxes."""

    def __init__(self, letters: str) -> None:
        self.letters = letters

    def getlength(self, text: str) -> float:
        return 10 * len(text)

    def getmask(self, text: str) -> bytes:
        return b" ".join(letter.encode() if letter in self.letters else b"box" for letter in text)


OWN = Stub(ASCII)
EAST = Stub(ASCII + CYRILLIC)
ASIA = Stub(KANJI)
RIGHT = Stub(ARABIC + HEBREW)


def letters(*others: Stub, shapes: bool = True) -> Lettering[Stub]:
    return Lettering([OWN, *others], shapes=shapes)


def parts(found: Sequence[lettering.Run[Stub]]) -> list[tuple[Stub, str]]:
    return [(run.font, run.text) for run in found]


def test_a_user_without_a_home_has_the_fonts_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Some.ttf").write_bytes(b"")
    monkeypatch.setattr(lettering, "FOLDERS", ("~no-such-user/fonts", str(tmp_path)))
    font_files.cache_clear()
    try:
        assert font_files() == (tmp_path / "Some.ttf",)
    finally:
        font_files.cache_clear()


def test_the_first_font_that_has_a_whole_text_writes_it() -> None:
    fonts = letters(ASIA, EAST)
    assert parts(fonts.runs("a dog")) == [(OWN, "a dog")]
    assert parts(fonts.runs("sks собака")) == [(EAST, "sks собака")]
    assert fonts.is_plain("a dog")
    assert not fonts.is_plain("собака")
    assert fonts.is_complete("a dog, собака, 犬")


def test_a_text_in_several_scripts_takes_several_fonts() -> None:
    found = letters(ASIA, EAST).runs("a 犬 собака dog")
    assert parts(found) == [(OWN, "a "), (ASIA, "犬 "), (EAST, "собака dog")]


def test_neighbours_from_right_to_left_change_places() -> None:
    arabic, hebrew = Stub(ARABIC), Stub(HEBREW)
    found = letters(arabic, hebrew).runs(f"a {ARABIC}{HEBREW} z")
    assert parts(found) == [(OWN, "a "), (hebrew, f"{HEBREW} "), (arabic, ARABIC), (OWN, "z")]


def test_a_letter_that_no_font_has_is_written_as_its_code() -> None:
    fonts = letters(EAST)
    assert parts(fonts.runs("sks 犬 🐕")) == [(OWN, r"sks \u72ac \U0001f415")]
    assert not fonts.is_complete("sks 犬")
    assert [escape(letter) for letter in "éłﬁ½"] == ["e", r"\u0142", "f", "1"]


def test_an_accent_is_joined_to_its_letter_before_fonts_are_asked() -> None:
    accented = Stub(ASCII + "é")
    assert parts(letters(accented).runs("e\u0301te\u0301")) == [(accented, "été")]


def test_what_cannot_be_shaped_or_turns_text_around_is_written_as_its_code() -> None:
    assert parts(letters(RIGHT, shapes=False).runs("كل")) == [(OWN, r"\u0643\u0644")]
    everything = Stub(ASCII + "\u202e")
    assert parts(letters(everything).runs("a\u202eb")) == [(OWN, r"a\u202eb")]


def test_what_joins_letters_is_no_box_where_they_are_codes() -> None:
    fonts = letters()
    assert parts(fonts.runs("x👩\u200d🚀\ufe0f")) == [(OWN, r"x\U0001f469\U0001f680")]
    persian = Stub(ASCII + "نمیشود")
    assert parts(letters(persian).runs("نمی\u200cشود")) == [(persian, "نمی\u200cشود")]


def test_lines_break_at_spaces_and_within_words_that_are_wider() -> None:
    fonts = letters(ASIA, EAST)
    assert fonts.wrap("sks собака dog", 100, 6) == ["sks собака", "dog"]
    assert fonts.wrap("砂浜の犬写真砂浜の犬", 40, 6) == ["砂浜の犬", "写真砂浜", "の犬"]
    assert fonts.wrap("a 砂浜の犬写真", 40, 6) == ["a", "砂浜の犬", "写真"]
    assert fonts.wrap("犬 " * 30, 90, 2) == ["犬 犬 犬 犬 犬", "犬 犬 犬 ..."]
    assert fonts.wrap("ふふ", 40, 6) == ["ふ", "ふ"]  # codes of six letters, which cannot be narrower
    for line in fonts.wrap(f"{KANJI * 9} {CYRILLIC * 9}", 120, 99):
        assert fonts.width(line) <= 120


def test_a_line_does_not_break_between_a_letter_and_its_signs() -> None:
    assert list(clusters("कुत्ते")) == ["कु", "त्", "ते"]
    assert list(clusters("👩\u200d🚀🐕")) == ["👩\u200d🚀", "🐕"]


@pytest.fixture
def fonts_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with fonts on this machine."""
    monkeypatch.setattr(lettering, "FOLDERS", (str(tmp_path),))
    font_files.cache_clear()
    yield tmp_path
    font_files.cache_clear()


def test_fonts_of_the_machine_come_behind_pillows_own_upright_and_wide_ones_first(fonts_folder: Path) -> None:
    (fonts_folder / "deep").mkdir()
    names = (
        "Zapf.ttf",
        "deep/NotoSansCJK-Regular.ttc",
        "NotoSans-Bold.ttf",
        "Arial.OTF",
        "LastResort.otf",
        "notes.txt",
    )
    for name in names:
        (fonts_folder / name).write_bytes(b"no font")
    found = [path.name for path in font_files()]
    assert found == ["NotoSansCJK-Regular.ttc", "Arial.OTF", "Zapf.ttf", "NotoSans-Bold.ttf"]


def test_a_damaged_font_file_is_passed_over(fonts_folder: Path) -> None:
    (fonts_folder / "broken.ttf").write_bytes(b"no font")
    own = ImageFont.load_default(15)
    assert list(load_fonts(own, lambda path: ImageFont.truetype(path, 15))) == [own]


def test_pillows_own_font_is_known_to_have_ascii_and_not_more() -> None:
    fonts = Lettering([ImageFont.load_default(15)], shapes=True)
    assert fonts.is_plain(ASCII)
    for letter in ["é", "ж", "λ", "ש", "ك", "त", "्", "ท", "ั", "犬", "개", "🐕", "\ufe0f", "\u200d"]:
        assert not fonts.is_plain(letter), letter


def test_labels_that_are_too_long_leave_out_how_they_begin_alike() -> None:
    room = Room(letters=20, width=200, lines=2)
    alike = "a photo of sks dog with a red hat "
    one, other, short = letters().labels([alike + "on a beach", alike + "in the snow", "sks dog"], room)
    assert one == ["... with a red hat", "on a beach"]
    assert other == ["... with a red hat", "in the snow"]
    assert short == ["sks dog"]


def test_a_text_that_is_too_wide_for_its_line_ends_in_an_ellipsis() -> None:
    assert letters().shortened("a photo", 70) == "a photo"
    assert letters().shortened("a photo of sks", 100) == "a phot ..."
