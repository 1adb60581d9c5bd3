from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.storage import names
from orchestrator.storage.names import unsafe_names

PARTS = st.sampled_from(
    ["a", "A", "ß", "ss", "é", "e\u0301", "..", ".", "", "a b", "\\", "C:", "\x00", "\n", "x" * 256]
)


@pytest.mark.parametrize(
    "hostile",
    [
        ["/etc/passwd"], ["../up"], ["a/../../up"], ["a//b"], ["a/./b"], [""], ["a/"], ["a\\..\\b"], ["C:/x"],
        ["a\x00b"],
        ["a\nb"], ["\x1b[2J"], ["x" * 256], ["ü" * 128], ["\ud800"], ["Weights", "weights"], ["stra\u00dfe", "STRASSE"],
        ["\u00e9", "e\u0301"], ["a", "a/b"], ["A", "a/b/c"],
    ],
    ids=repr,
)  # fmt: skip
def test_names_that_would_write_elsewhere_or_over_one_another_are_refused(hostile: list[str]) -> None:
    assert unsafe_names({"fine/name.png": 1, **dict.fromkeys(hostile, 1)})


def test_names_as_trees_have_them_are_fine() -> None:
    assert unsafe_names({"unet/config.json": 1, "unet/weights": 0, ".hidden": 2, "ein Füchslein #1.png": 3}) == []


def test_there_is_a_most_of_files_and_of_bytes() -> None:
    assert unsafe_names({str(number): 0 for number in range(names.MAX_FILES + 1)})
    assert unsafe_names({"a": names.MAX_BYTES, "b": 1})
    assert unsafe_names({"a": -1})


@given(st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), max_size=4))
def test_what_is_let_through_stays_inside_and_apart(listed: list[str]) -> None:
    if not unsafe_names(dict.fromkeys(listed, 1)):
        root = Path("/root/of/tree")
        places = [(root / name).resolve() for name in set(listed)]
        assert all(place.is_relative_to(root) and place != root for place in places)
        assert not any(place in other.parents for place in places for other in places)
