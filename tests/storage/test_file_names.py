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
def test_names_outside_the_folder_and_clashing_names_are_refused(hostile: list[str]) -> None:
    assert unsafe_names({"fine/name.png": 1, **dict.fromkeys(hostile, 1)})


def test_ordinary_names_are_allowed() -> None:
    assert unsafe_names({"unet/config.json": 1, "unet/weights": 0, ".hidden": 2, "ein Füchslein #1.png": 3}) == []


def test_files_and_bytes_are_limited() -> None:
    assert unsafe_names({str(number): 0 for number in range(names.MAX_FILES + 1)})
    assert unsafe_names({"a": names.MAX_BYTES, "b": 1})
    assert not unsafe_names({"a": names.MAX_BYTES})
    assert unsafe_names({"a": -1})


@given(st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), max_size=4))
def test_allowed_names_are_different_files_inside_the_folder(listed: list[str]) -> None:
    if not unsafe_names(dict.fromkeys(listed, 1)):
        root = Path("/root/of/tree")
        paths = [(root / name).resolve() for name in set(listed)]
        for path in paths:
            assert path.is_relative_to(root)
            assert path != root
            assert not any(path in other.parents for other in paths)
