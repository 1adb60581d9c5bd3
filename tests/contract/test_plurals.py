import pytest

from orchestrator.contract.plurals import counted


@pytest.mark.parametrize(("count", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_a_noun_agrees_with_its_number(count: int, text: str) -> None:
    assert counted(count, "image") == text
