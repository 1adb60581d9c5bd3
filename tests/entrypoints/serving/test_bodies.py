"""Bodies of three kinds of clients are read as the same request, and what is wrong with one is named."""

import base64
import json
from typing import Any

import pytest

from entrypoints.serving.bodies import (
    DEEPEST,
    JUMPSTART,
    OPENAI,
    OWN,
    BodyError,
    Defaults,
    read_invocation,
    read_openai,
)
from orchestrator.contract.generation import AdapterUse

DEFAULTS = Defaults(steps=12, guidance=4.0, size=64)
PICTURE = base64.b64encode(b"a picture").decode()


def own(**fields: Any) -> bytes:
    return json.dumps({"inputs": "a dog", **fields}).encode()


def test_the_three_bodies_say_the_same() -> None:
    parameters = {"seed": 5, "width": 96, "num_images_per_prompt": 2}
    ours = read_invocation(own(parameters=parameters), DEFAULTS)
    theirs = read_invocation(json.dumps({"prompt": "a dog", **parameters}).encode(), DEFAULTS)
    openai = read_openai(json.dumps({"prompt": "a dog", "seed": 5, "size": "96x96", "n": 2}).encode(), DEFAULTS)
    assert ours.generation == theirs.generation == openai.generation
    assert (ours.style, theirs.style, openai.style) == (OWN, JUMPSTART, OPENAI)
    assert ours.generation.seeds == (5, 6)
    assert (ours.generation.steps, ours.generation.guidance, ours.generation.size) == (12, 4.0, 96)


def test_adapters_go_by_either_name_and_openais_model_is_one() -> None:
    ours = read_invocation(own(adapters=[{"name": "dog", "weight": 0.5}], loras=[{"name": "ink"}]), DEFAULTS)
    assert ours.generation.adapters == (AdapterUse(name="dog", weight=0.5), AdapterUse(name="ink"))
    openai = read_openai(b'{"prompt": "a dog", "model": "ink"}', DEFAULTS)
    assert openai.generation.adapters == (AdapterUse(name="ink"),)


def test_a_seed_that_is_left_out_is_another_each_time_and_is_told() -> None:
    seeds = {read_invocation(own(), DEFAULTS).generation.seeds for _ in range(4)}
    assert len(seeds) > 1


def test_an_image_to_begin_with_comes_with_its_mask() -> None:
    asked = read_invocation(own(image=PICTURE, mask=PICTURE, parameters={"strength": 0.5}), DEFAULTS)
    assert asked.generation.image == asked.generation.mask == b"a picture"
    assert asked.generation.strength == 0.5
    with pytest.raises(BodyError, match="none to begin with"):
        read_invocation(own(mask=PICTURE), DEFAULTS)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "no JSON"),
        (b"[1]", "no JSON object"),
        (b'"text"', "no JSON object"),
        (b"{}", "inputs"),
        (b"[" * 100_000, "no JSON"),
        (own(parameters={"num_inference_step": 3}), "num_inference_step"),
        (own(parameters={"guidance_scale": "much"}), "guidance_scale"),
        (own(parameters={"guidance_scale": float("nan")}), "guidance_scale"),
        (own(parameters={"width": 64, "height": 128}), "images are square"),
        (own(parameters={"width": 65}), "size"),
        (own(parameters={"scheduler": "fast"}), "scheduler"),
        (own(adapters=[{"weight": 1}]), "name"),
        (own(adapter=[]), "adapter"),
        (own(image="%%%"), "image"),
        (own(inputs=[]), "prompts"),
        (own(parameters={"num_images_per_prompt": 65}), "num_images_per_prompt"),
        (
            json.dumps({"inputs": "a dog", "adapters": json.loads("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))}).encode(),
            "deep",
        ),
    ],
)
def test_what_is_wrong_with_a_body_is_named(content: bytes, named: str) -> None:
    with pytest.raises(BodyError) as caught:
        read_invocation(content, DEFAULTS)
    assert named in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("response_format", "url"), ("size", "wide"), ("n", 0)])
def test_what_is_wrong_with_openais_body_is_named(field: str, value: Any) -> None:
    with pytest.raises(BodyError) as caught:
        read_openai(json.dumps({"prompt": "a dog", field: value}).encode(), DEFAULTS)
    assert field in str(caught.value)


@pytest.mark.parametrize("size", ["64", "64x64x64", "xauto", "٦٤x٦٤", "64x96"])
def test_sizes_that_are_none_or_not_square_are_refused(size: str) -> None:
    with pytest.raises(BodyError):
        read_openai(json.dumps({"prompt": "a dog", "size": size}).encode(), DEFAULTS)


def test_a_scheduler_goes_by_its_name_or_its_class_in_diffusers() -> None:
    for name in ("euler", "EulerDiscreteScheduler"):
        assert read_invocation(own(parameters={"scheduler": name}), DEFAULTS).generation.scheduler == "euler"
