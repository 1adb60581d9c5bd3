"""What is printed: sizes, the same everywhere."""

import pytest

from orchestrator.contract.plurals import counted
from orchestrator.terminal import size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (4_257, "4.26 kB"),
        (415_560, "416 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (1_340_000_000, "1.34 GB"),
        (999_999_999_999, "1 TB"),
        (2 * 10**12, "2 TB"),
    ],
)
def test_a_size_has_three_digits_and_is_never_nothing(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 images"), (1, "1 image"), (0.6, "1 image"), (2, "2 images"), (1.2, "1 image")]
)
def test_one_thing_is_not_said_in_the_plural(count: float, text: str) -> None:
    assert counted(count, "image") == text
