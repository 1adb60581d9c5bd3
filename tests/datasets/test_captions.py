"""Captions beside the images, in metadata.jsonl, and everything that can be wrong with them."""

import json
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

Draw = Callable[..., Image.Image]
Folder = Any  # the class in conftest, which pytest offers as a fixture only


@pytest.fixture
def pair(folder: Folder, draw: Draw) -> Folder:
    """A folder with a.jpg and b.png."""
    folder.add("a.jpg", draw(1))
    folder.add("b.png", draw(2))
    return folder


def entry(name: str, text: str = "words") -> str:
    return json.dumps({"file_name": name, "text": text}) + "\n"


def captions(folder: Folder) -> dict[str, str | None]:
    return {str(image.file): image.caption for image in folder.inspect().images}


def test_text_files_beside_the_images(pair: Folder) -> None:
    pair.add("a.TXT", "\ufeffa dog,\n  on grass \r\n")
    pair.add("b.txt", "ein Hündchen")
    assert captions(pair) == {"a.jpg": "a dog, on grass", "b.png": "ein Hündchen"}


def test_metadata_jsonl(pair: Folder) -> None:
    pair.add("metadata.jsonl", '\ufeff{"file_name": "./b.png", "text": "a\u2028cat", "n": 1}\r\n\n' + entry("a.jpg"))
    assert captions(pair) == {"a.jpg": "words", "b.png": "a cat"}


def test_accents_match_in_either_normal_form(folder: Folder, draw: Draw) -> None:
    folder.add(unicodedata.normalize("NFD", "Hündin.png"), draw(1))
    folder.add("metadata.jsonl", entry(unicodedata.normalize("NFC", "Hündin.png")))
    folder.add(unicodedata.normalize("NFD", "Rüde.png"), draw(2))
    folder.add(unicodedata.normalize("NFC", "Rüde.txt"), "words")
    assert list(captions(folder).values()) == ["words", "words"]


def test_both_kinds_may_agree_and_must_not_differ(pair: Folder) -> None:
    pair.add("a.txt", "words\n")
    pair.add("b.txt", "words")
    pair.add("metadata.jsonl", entry("a.jpg") + entry("b.png", " words "))
    assert set(captions(pair).values()) == {"words"}
    pair.add("b.txt", "other words")
    assert pair.defects() == ['b.png: has 2 captions: "other words" in b.txt, "words" in metadata.jsonl']


def test_a_folder_without_captions_has_no_finding(pair: Folder) -> None:
    assert pair.warnings() == []
    assert captions(pair) == {"a.jpg": None, "b.png": None}


def test_some_images_without_a_caption_are_warned_of(pair: Folder) -> None:
    pair.add("a.txt", "words")
    assert pair.warnings() == ["b.png: 1 of 2 images has no caption: b.png (caption them too)"]


def test_orphans_and_empty_captions_are_warned_of(pair: Folder) -> None:
    pair.add("c.txt", "words")
    pair.add("b.txt", " \n")
    assert pair.remarks() == [
        "b.txt: has no caption",
        "c.txt: is skipped: no image has this name",
    ]
    assert captions(pair) == {"a.jpg": None, "b.png": None}


def test_every_broken_line_is_reported_with_its_number(pair: Folder) -> None:
    lines = [
        entry("a.jpg"),
        "{oops\n",
        "[1]\n",
        '{"text": "words"}\n',
        entry("c.jpg"),
        entry("../b.png"),
        entry("/etc/b.png"),
        entry("..\\b.png"),
        entry("C:b.png"),
        entry("sub/b.png"),
        entry("a.jpg"),
        '{"file_name": "b.png", "caption": "words"}\n',
    ]
    pair.add("metadata.jsonl", "".join(lines))
    assert pair.defects() == [
        "metadata.jsonl: line 2: is not JSON: Expecting property name enclosed in double quotes",
        "metadata.jsonl: line 3: is not a JSON object",
        'metadata.jsonl: line 4: "file_name" is missing',
        "metadata.jsonl: line 5: there is no image c.jpg",
        "metadata.jsonl: line 6: ../b.png points outside the folder",
        "metadata.jsonl: line 7: /etc/b.png points outside the folder",
        "metadata.jsonl: line 8: ..\\b.png points outside the folder",
        "metadata.jsonl: line 9: C:b.png points outside the folder",
        "metadata.jsonl: line 10: there is no image sub/b.png",
        "metadata.jsonl: line 11: names a.jpg again, after line 1",
        'metadata.jsonl: line 12: "text" is missing',
    ]
    assert 'the caption belongs under "text"; found: caption' in pair.problems()[-1]


@pytest.mark.parametrize("line", ["[" * 100_000, "1" * 5000, '{"file_name": "b.png", "text": 3}', "\0", '"\\ud800"'])
def test_hostile_lines_are_problems(pair: Folder, line: str) -> None:
    pair.add("metadata.jsonl", line)
    (problem,) = pair.problems()
    assert problem.startswith("metadata.jsonl: line 1: ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"x" * 1001, "a.txt: the caption has 1001 characters; at most 1000 are allowed"),
        (b"x" * 20_000, "a.txt: is longer than 16384 bytes"),
        ("words".encode("utf-16"), "a.txt: is not UTF-8 text"),
        (b"\x1b[2Jwords", "a.txt: the caption holds control characters"),
    ],
)
def test_captions_that_cannot_be_used(pair: Folder, content: bytes, expected: str) -> None:
    pair.add("a.txt", content)
    assert pair.defects() == [expected]


def test_an_unpaired_surrogate_is_no_caption(pair: Folder) -> None:
    pair.add("metadata.jsonl", '{"file_name": "a.jpg", "text": "\\ud800"}')
    assert pair.defects() == ["metadata.jsonl: line 1: the caption holds control characters"]


def test_messages_escape_what_captions_and_entries_hold(pair: Folder) -> None:
    pair.add("a.txt", "one")
    entries = [{"file_name": "a.jpg", "text": "\u202etwo"}, {"file_name": "\x1b[2J.png"}]
    pair.add("metadata.jsonl", "\n".join(map(json.dumps, entries)))
    text = " ".join(pair.problems())
    assert text.isprintable()
    assert r"\u202etwo" in text
    assert r"\x1b[2J.png" in text


def test_a_defect_of_an_image_does_not_hide_those_of_its_caption(pair: Folder) -> None:
    pair.add("a.jpg", b"")
    pair.add("a.txt", b"\xff")
    pair.add("metadata.jsonl", entry("a.jpg", "x" * 1001))
    assert pair.defects() == [
        "a.jpg: is empty",
        "a.txt: is not UTF-8 text",
        "metadata.jsonl: line 1: the caption has 1001 characters; at most 1000 are allowed",
    ]


@pytest.mark.parametrize(
    ("name", "image"),
    [("a.caption", "a.jpg"), ("a.CAPTION", "a.jpg"), ("a.jpg.txt", "a.jpg"), ("b.png.caption", "b.png")],
)
def test_caption_files_of_other_trainers_are_read(pair: Folder, name: str, image: str) -> None:
    pair.add(name, "a dog\n")
    assert captions(pair)[image] == "a dog"


@pytest.mark.parametrize(
    "table",
    [
        "file_name,text\na.jpg,one\nb.png,two\n",
        '\ufeff"file_name","text"\r\n"a.jpg","one"\r\n"b.png","two"\r\n',
        "file_name;text\na.jpg;one\nb.png;two",
        "text\tn\tfile_name\none\t1\ta.jpg\n\ntwo\t2\t./b.png\n",
        'file_name, text\na.jpg, "one"\nb.png, two',
        "\nfile_name,text\rb.png,two\ra.jpg,one\r",
    ],
)
@pytest.mark.parametrize("name", ["metadata.csv", "Metadata.CSV"])
def test_metadata_csv_as_programs_and_spreadsheets_write_it(pair: Folder, table: str, name: str) -> None:
    pair.add(name, table)
    assert captions(pair) == {"a.jpg": "one", "b.png": "two"}


def test_a_quoted_text_in_csv_may_hold_commas_quotation_marks_and_lines(pair: Folder) -> None:
    pair.add("metadata.csv", 'file_name,text\na.jpg,"a ""big"" dog,\n asleep"\nb.png,ein Hündchen; müde\n')
    assert captions(pair) == {"a.jpg": 'a "big" dog, asleep', "b.png": "ein Hündchen; müde"}


def test_every_broken_row_of_csv_is_reported_with_its_line(pair: Folder) -> None:
    rows = [
        "file_name,text",
        "a.jpg,a dog, asleep",
        "c.jpg,words",
        "b.png,",
        '../x.png,"two',
        'lines"',
        ",words",
        "b.png",
    ]
    pair.add("metadata.csv", "\n".join(rows))
    assert pair.defects() == [
        "metadata.csv: line 2: has 3 cells for 2 columns",
        "metadata.csv: line 3: there is no image c.jpg",
        "metadata.csv: line 5: ../x.png points outside the folder",
        'metadata.csv: line 7: "file_name" is missing',
        "metadata.csv: line 8: has 1 cell for 2 columns",
    ]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("", "is empty"),
        ("a.jpg,a dog\n", 'line 1: names no column "file_name"; found: a.jpg, a dog'),
        ("file_name,caption\na.jpg,x\n", 'line 1: names no column "text"; found: file_name, caption'),
        ("file_name,text,text\n", 'line 1: names the column "text" twice'),
        ('"file_name,text\na.jpg,a dog\n', "line 2: is not CSV: unexpected end of data"),
        ('file_name,text\na.jpg,"open', "line 2: is not CSV: unexpected end of data"),
        ('file_name,text\na.jpg,"a"b"', "line 2: is not CSV: ',' expected after '\"'"),
        ("file_name,text\na.jpg," + "x" * 200_000, "line 2: is not CSV: field larger than field limit"),
        ("file_name,text\na.jpg,a\0b\n", "line 2: the caption holds control characters"),
    ],
)
def test_csv_that_cannot_be_used(pair: Folder, table: str, expected: str) -> None:
    pair.add("metadata.csv", table)
    (problem,) = pair.problems()
    assert problem.startswith(f"metadata.csv: {expected}")
    assert problem.endswith(")")


def test_any_two_sources_may_agree_and_must_not_differ(pair: Folder) -> None:
    pair.add("a.txt", "words")
    pair.add("a.caption", " words ")
    pair.add("metadata.csv", "file_name,text\na.jpg,words\nb.png,one\n")
    pair.add("metadata.jsonl", entry("a.jpg"))
    assert captions(pair) == {"a.jpg": "words", "b.png": "one"}
    pair.add("a.caption", "other")
    pair.add("b.caption", "two")
    assert pair.defects() == [
        'a.jpg: has 2 captions: "other" in a.caption, "words" in a.txt',
        'b.png: has 2 captions: "two" in b.caption, "one" in metadata.csv',
    ]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("captions.csv", "save it as metadata.csv with the columns file_name and text"),
        ("metadata.tsv", "save it as metadata.csv"),
        ("Captions.XLSX", "save it as metadata.csv"),
        ("train-00000-of-00001.parquet", "its captions as metadata.csv"),
        ("data.arrow", "its captions as metadata.csv"),
        ("meta_cap.json", 'write them there, a line for each image: {"file_name": "a.jpg"'),
        ("captions.jsonl", "captions in JSON are read from metadata.jsonl alone"),
        ("a.npz", "remove it; images are encoded anew"),
        ("a.tags", "end its name in .txt"),
        ("dataset.toml", "-s FIELD=VALUE"),
        ("photos.zip", "unpack it"),
        ("IMG_1.MOV", "save a frame of it"),
        ("IMG_1.AAE", "export the edited photo"),
        ("notes.pdf", "move it out of the folder"),
    ],
)
def test_files_of_other_programs_are_named_with_what_to_do(pair: Folder, name: str, advice: str) -> None:
    pair.add(name, b"anything")
    (warning,) = pair.warnings()
    assert warning.startswith(f"{name}: is skipped")
    assert advice in warning


def test_many_files_of_one_kind_are_one_warning(pair: Folder) -> None:
    for number in range(20):
        pair.add(f"{number:02}.npz", b"PK")
    (warning,) = pair.warnings()
    assert warning.startswith("00.npz: is skipped")
    assert "so are 19 others of this kind" in warning


@pytest.mark.parametrize("name", ["a.txt", "a.caption", "metadata.jsonl", "metadata.csv"])
def test_a_pointer_of_git_lfs_is_no_caption(pair: Folder, name: str) -> None:
    pair.add(name, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    (problem,) = pair.problems()
    assert problem == f"{name}: is a git-LFS pointer, not the file itself (in the folder: git lfs pull)"


def test_lines_of_a_caption_file_are_joined_and_that_is_said_once(pair: Folder) -> None:
    pair.add("a.txt", "a sks dog\n\non a beach\n")
    pair.add("b.txt", "a sks dog\nasleep")
    assert captions(pair) == {"a.jpg": "a sks dog on a beach", "b.png": "a sks dog asleep"}
    (remark,) = pair.remarks()
    assert remark == "a.txt: has several lines, which are joined to one caption; so has 1 other"


def test_an_empty_line_around_a_caption_is_not_worth_a_word(pair: Folder) -> None:
    pair.add("a.txt", "\na sks dog\n\n")
    pair.add("b.txt", "a sks dog\n")
    assert pair.remarks() == []


def repeats(folder: Folder) -> dict[str, int]:
    return {str(image.file): image.repeats for image in folder.inspect().images}


def test_an_image_may_count_as_several_in_either_kind_of_table(pair: Folder) -> None:
    pair.add("metadata.jsonl", '{"file_name": "a.jpg", "text": "a dog", "repeats": 3}\n')
    assert repeats(pair) == {"a.jpg": 3, "b.png": 1}
    (pair.path / "metadata.jsonl").unlink()
    pair.add("metadata.csv", "file_name,text,repeats\na.jpg,a dog,\nb.png,a cat,2\n")
    assert repeats(pair) == {"a.jpg": 1, "b.png": 2}


@pytest.mark.parametrize("count", ["0", "-2", "1001", '"many"', "true", "[3]", "2.5", "1e400"])
def test_repeats_that_are_no_count_are_problems(pair: Folder, count: str) -> None:
    pair.add("metadata.jsonl", f'{{"file_name": "a.jpg", "text": "a dog", "repeats": {count}}}\n')
    (problem,) = pair.problems()
    assert "metadata.jsonl: line 1" in problem
    assert '"repeats" is' in problem
    assert "whole number from 1 to 1000" in problem
