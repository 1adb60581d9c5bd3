"""The safety checker of a base model: its verdict is in the answer, and the image is the same as without it."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from asked_app import Server, body, images_of
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from entrypoints.serve import assembled
from entrypoints.serving.safety import load_checker
from entrypoints.serving.state import State
from orchestrator.contract.events import Warned, parse
from orchestrator.contract.model_file import ModelFileError
from orchestrator.contract.serving import ServerOrder
from orchestrator.models.tree import model_tree, served_tree

ALWAYS, NEVER = -2.0, 2.0
"""Thresholds that every cosine is above, or below."""
FEW = {"num_inference_steps": 2, "seed": 1}
With = Callable[[float], Path]


@pytest.fixture
def with_checker(base_folder: Path, tmp_path: Path) -> With:
    """Return what copies the base model, with a checker whose concepts have this threshold."""

    def write(threshold: float) -> Path:
        folder = shutil.copytree(base_folder, tmp_path / "model")
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        vision = {**sizes, "image_size": tiny.SIDE, "patch_size": 8, "projection_dim": 16}
        checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))
        checker.concept_embeds.data.normal_()
        checker.special_care_embeds.data.normal_()
        checker.concept_embeds_weights.data.fill_(threshold)
        checker.special_care_embeds_weights.data.fill_(NEVER)
        checker.save_pretrained(folder / "safety_checker")
        side = {"height": tiny.SIDE, "width": tiny.SIDE}
        extractor = CLIPImageProcessor(size={"shortest_edge": tiny.SIDE}, crop_size=side)
        extractor.save_pretrained(folder / "feature_extractor")
        return folder

    return write


@contextmanager
def serving(folder: Path, root: Path, **fields: Any) -> Iterator[Server]:
    order = ServerOrder(base_model="tiny", base_folder=folder, root=root, rows=2, **fields)
    state = State(root)
    service, worker = assembled(order, root / "unpacked")
    worker.start()
    state.ready(service, worker)
    yield Server(state)
    worker.stop()


@pytest.mark.parametrize(("threshold", "flagged"), [(ALWAYS, True), (NEVER, False)])
def test_each_answer_has_the_verdict_and_the_image_as_it_was_drawn(
    with_checker: With, tmp_path: Path, threshold: float, flagged: bool
) -> None:
    folder = with_checker(threshold)
    with serving(folder, tmp_path) as server:
        two = server.post("/invocations", body(parameters={**FEW, "num_images_per_prompt": 2}))
        png = server.post("/invocations", body(parameters=FEW), accept="image/png")
        openai = server.post("/v1/images/generations", {"prompt": "a dog", "num_inference_steps": 2})
    assert [one["flagged"] for one in two.json()["images"]] == [flagged, flagged]
    assert json.loads(png.headers["x-orchestrator-image"])["flagged"] is flagged
    assert [one["flagged"] for one in openai.json()["images"]] == [flagged]
    with serving(folder, tmp_path, safety_checker=False) as server:
        without = server.post("/invocations", body(parameters={**FEW, "num_images_per_prompt": 2}))
    assert all("flagged" not in one for one in without.json()["images"])
    assert images_of(two) == images_of(without)


def test_the_verdict_depends_on_the_image(with_checker: With) -> None:
    checker = load_checker(with_checker(NEVER), torch.device("cpu"))
    assert checker is not None
    pictures = [Image.new("RGB", (48, 64), "white"), tiny.random_image(0).resize((64, 48))]
    network = checker.network
    nearest = []
    for picture in pictures:
        pixels = checker.extractor(picture, return_tensors="pt").pixel_values
        embedded = network.visual_projection(network.vision_model(pixels)[1])
        cosines = torch.nn.functional.cosine_similarity(embedded, network.concept_embeds)
        nearest.append(float(cosines.max()))
    assert abs(nearest[0] - nearest[1]) > 0.002  # the checker rounds to a thousandth
    network.concept_embeds_weights.data.fill_(sum(nearest) / 2)
    flagged = [checker.flags(picture) for picture in pictures]
    assert flagged == [one > sum(nearest) / 2 for one in nearest]


def test_a_checker_without_safetensors_is_left_out_with_a_warning(
    with_checker: With, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_checker(ALWAYS)
    weights = folder / "safety_checker" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    assert load_checker(folder, torch.device("cpu")) is None
    (event,) = [parse(line) for line in capsys.readouterr().out.splitlines()]
    assert isinstance(event, Warned)
    assert "no safetensors file" in event.message


@pytest.mark.parametrize("lost", ["feature_extractor/preprocessor_config.json", "safety_checker/model.safetensors"])
def test_a_damaged_checker_is_no_missing_one(with_checker: With, lost: str) -> None:
    folder = with_checker(ALWAYS)
    if lost.endswith(".json"):
        (folder / lost).unlink()
    else:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / lost)
        del tensors["concept_embeds"]
        save_file(tensors, folder / lost, {"format": "pt"})
    with pytest.raises(ModelFileError, match=lost.partition("/")[0]):
        load_checker(folder, torch.device("cpu"))


def test_a_model_goes_to_a_server_with_its_checker_and_to_a_job_without(with_checker: With, base_folder: Path) -> None:
    folder = with_checker(ALWAYS)
    added = set(served_tree(folder).sources) - set(model_tree(folder).sources)
    assert added == {
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "feature_extractor/preprocessor_config.json",
    }
    assert served_tree(folder, checker=False).sha256 == served_tree(base_folder).sha256
