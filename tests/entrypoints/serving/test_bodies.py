"""Bodies of three kinds of clients are read as the same request, and what is wrong with one is named."""

import base64
import json
from collections.abc import Sequence
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
OF_DOG = Defaults(steps=30, guidance=2.0, size=96)
PICTURE = base64.b64encode(b"a picture").decode()


def defaults(adapters: Sequence[str]) -> Defaults:
    return OF_DOG if adapters and adapters[0] == "dog" else DEFAULTS


def own(**fields: Any) -> bytes:
    return json.dumps({"inputs": "a dog", **fields}).encode()


def test_the_three_bodies_say_the_same() -> None:
    parameters = {"seed": 5, "width": 96, "height": 96, "num_images_per_prompt": 2}
    ours = read_invocation(own(parameters=parameters), defaults)
    theirs = read_invocation(json.dumps({"prompt": "a dog", **parameters}).encode(), defaults)
    openai = read_openai(json.dumps({"prompt": "a dog", "seed": 5, "size": "96x96", "n": 2}).encode(), defaults)
    assert ours.generation == theirs.generation == openai.generation
    assert (ours.style, theirs.style, openai.style) == (OWN, JUMPSTART, OPENAI)
    assert ours.generation.seeds == (5, 6)
    assert (ours.generation.steps, ours.generation.guidance, ours.generation.shape) == (12, 4.0, (96, 96))


def test_adapters_go_by_either_name_and_openais_model_is_one() -> None:
    ours = read_invocation(own(adapters=[{"name": "dog", "weight": 0.5}], loras=[{"name": "ink"}]), defaults)
    assert ours.generation.adapters == (AdapterUse(name="dog", weight=0.5), AdapterUse(name="ink"))
    openai = read_openai(b'{"prompt": "a dog", "model": "ink"}', defaults)
    assert openai.generation.adapters == (AdapterUse(name="ink"),)


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": "a dog", "adapters": [{"name": "dog"}, {"name": "ink"}]},
        {"inputs": "a dog", "parameters": {"loras": [{"name": "dog"}]}},
    ],
)
def test_what_a_request_does_not_say_is_as_the_recipe_of_its_first_adapter_has_it(body: dict[str, Any]) -> None:
    asked = read_invocation(json.dumps(body).encode(), defaults).generation
    assert (asked.steps, asked.guidance, asked.size) == OF_DOG[:3]
    openai = read_openai(b'{"prompt": "a dog", "model": "dog", "num_inference_steps": 7}', defaults).generation
    assert (openai.steps, openai.guidance, openai.size) == (7, *OF_DOG[1:3])


def test_a_seed_that_is_left_out_is_another_each_time_and_is_told() -> None:
    seeds = {read_invocation(own(), defaults).generation.seeds for _ in range(4)}
    assert len(seeds) > 1


def test_an_image_to_begin_with_comes_with_its_mask() -> None:
    asked = read_invocation(own(image=PICTURE, mask=PICTURE, parameters={"strength": 0.5}), defaults)
    assert asked.generation.image == asked.generation.mask == b"a picture"
    assert asked.generation.strength == 0.5
    with pytest.raises(BodyError, match="none to begin with"):
        read_invocation(own(mask=PICTURE), defaults)


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
        (own(parameters={"width": 65}), "width: should be a multiple of 8"),
        (own(parameters={"width": 64, "height": 16}), "height: should be greater than or equal to 32"),
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
        read_invocation(content, defaults)
    assert named in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("response_format", "url"), ("size", "wide"), ("n", 0)])
def test_what_is_wrong_with_openais_body_is_named(field: str, value: Any) -> None:
    with pytest.raises(BodyError) as caught:
        read_openai(json.dumps({"prompt": "a dog", field: value}).encode(), defaults)
    assert field in str(caught.value)


@pytest.mark.parametrize("size", ["64", "64x64x64", "xauto", "٦٤x٦٤", "64x97"])
def test_sizes_that_are_none_are_refused(size: str) -> None:
    with pytest.raises(BodyError):
        read_openai(json.dumps({"prompt": "a dog", "size": size}).encode(), defaults)


def test_images_need_not_be_square_and_what_is_left_out_is_the_usual_size() -> None:
    wide = {"width": 96, "height": 40}
    ours = read_invocation(own(parameters=wide), defaults).generation
    theirs = read_invocation(json.dumps({"prompt": "a dog", **wide}).encode(), defaults).generation
    openai = read_openai(b'{"prompt": "a dog", "size": "96x40"}', defaults).generation
    assert ours.shape == theirs.shape == openai.shape == (96, 40)
    assert read_invocation(own(parameters={"height": 40}), defaults).generation.shape == (64, 40)
    of_dog = own(parameters={"width": 40}, adapters=[{"name": "dog"}])
    assert read_invocation(of_dog, defaults).generation.shape == (40, 96)


def test_a_scheduler_goes_by_its_name_or_its_class_in_diffusers() -> None:
    for name in ("euler", "EulerDiscreteScheduler"):
        assert read_invocation(own(parameters={"scheduler": name}), defaults).generation.scheduler == "euler"
