"""What a generation may ask for, and what of it is refused."""

import base64
import json
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.contract.generation import MOST_IMAGES, MOST_PICTURE_BYTES, Control, Generation

PICTURE = base64.b64encode(b"a picture")
ASKED = {"prompts": ["a dog"], "seeds": [0], "steps": 10, "guidance": 7.5, "size": 64}


def control(**fields: Any) -> Control:
    return Control.model_validate({"network": "edges", "kind": "canny", "picture": PICTURE, **fields})


def generation(**fields: Any) -> Generation:
    return Generation.model_validate({**ASKED, **fields})


def test_each_prompt_is_drawn_with_each_seed() -> None:
    asked = generation(prompts=["a dog", "a cat"], seeds=[3, 5])
    assert asked.images == [("a dog", 3), ("a dog", 5), ("a cat", 3), ("a cat", 5)]


def test_a_generation_survives_the_way_over_the_wire() -> None:
    controls = [control(mask=PICTURE, settings={"low": 50}), control(kind="given", is_map=True, start=0.2, end=0.5)]
    asked = generation(controls=controls, adapters=[{"name": "dog", "weight": 0.5}], scheduler="euler")
    sent = asked.model_dump_json()
    assert json.loads(sent)["controls"][0]["picture"].strip() == PICTURE.decode()
    assert Generation.model_validate_json(sent) == asked
    assert asked.controls[0].picture == b"a picture"


def test_settings_of_a_map_are_numbers_however_they_were_typed() -> None:
    assert control(settings={"low": "50"}).settings == {"low": 50}


REFUSED = {
    "an unknown kind": ({"kind": "cany"}, 'did you mean "canny"'),
    "a scale below zero": ({"scale": -0.1}, "scale"),
    "a scale above two": ({"scale": 2.1}, "scale"),
    "no number": ({"scale": "nan"}, "scale"),
    "a window that ends before it starts": ({"start": 0.6, "end": 0.4}, "start must be before end"),
    "a window of no steps": ({"start": 0.5, "end": 0.5}, "start must be before end"),
    "a start after the end": ({"start": 1.0}, "start"),
    "an end at the beginning": ({"end": 0}, "end"),
    "settings of another kind": ({"settings": {"radius": 0.1}}, "no such field"),
    "settings beyond their limits": ({"settings": {"low": 300}}, "low must not be above high"),
    "settings of a map that is there": ({"settings": {"low": 50}, "is_map": True}, "a map already"),
    "a given map that is none": ({"kind": "given"}, "never computed"),
    "no base64": ({"picture": "%%%"}, "picture"),
    "no picture": ({"picture": ""}, "picture"),
    "a picture that is too large": ({"picture": base64.b64encode(bytes(MOST_PICTURE_BYTES + 1))}, "picture"),
    "no name": ({"network": ""}, "network"),
    "a field that there is not": ({"strength": 1}, "strength"),
}


@pytest.mark.parametrize(("fields", "what"), REFUSED.values(), ids=list(REFUSED))
def test_a_control_outside_its_limits_is_refused(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        control(**fields)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"prompts": []}, "prompts"),
        ({"prompts": [""]}, "prompts"),
        ({"seeds": [-1]}, "seeds"),
        ({"prompts": ["a"] * 9, "seeds": list(range(8))}, f"at most {MOST_IMAGES}"),
        ({"scheduler": "best"}, "scheduler"),
        ({"size": 65}, "size"),
        ({"width": 65}, "width"),
        ({"height": 16}, "height"),
        ({"size": None, "width": 64}, "no size"),
        ({"guidance": float("inf")}, "guidance"),
        ({"adapters": [{"name": "dog", "weight": 11}]}, "weight"),
        ({"controls": [control()] * 9}, "controls"),
    ],
)
def test_a_generation_outside_its_limits_is_refused(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        generation(**fields)


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({"size": 64}, (64, 64)),
        ({"size": 64, "height": 96}, (64, 96)),
        ({"size": None, "width": 40, "height": 96}, (40, 96)),
    ],
)
def test_a_size_stands_for_the_sides_that_are_left_out(fields: dict[str, Any], shape: tuple[int, int]) -> None:
    assert generation(**fields).shape == shape
