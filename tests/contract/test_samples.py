"""An index of images that was made elsewhere has limits."""

import json

import pytest

from orchestrator.contract.samples import MOST_PROMPTS, parse_index


def index(prompts: int, step: int | None = None) -> bytes:
    images = [{"file": "a.png", "source": "after", "text": str(number), "step": step} for number in range(prompts)]
    return json.dumps({"images": images}).encode()


def test_an_index_of_more_prompts_than_a_sheet_has_rows_is_refused() -> None:
    assert len(parse_index(index(MOST_PROMPTS)).images) == MOST_PROMPTS
    with pytest.raises(ValueError, match=f"at most {MOST_PROMPTS} are shown"):
        parse_index(index(MOST_PROMPTS + 1))


def test_images_on_the_way_are_no_rows() -> None:
    assert len(parse_index(index(MOST_PROMPTS + 1, step=5)).images) == MOST_PROMPTS + 1
