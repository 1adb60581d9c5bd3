"""Images drawn during training."""

from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file, save_file

from orchestrator.contract.samples import INDEX_FILE, parse_index


def test_validation_images_are_announced_and_listed_with_their_steps(job: Any, run: Any) -> None:
    recipe = tiny.dreambooth(
        validation_prompts=("a dog", "a red toy"), validation_steps=2, evaluation_prompts=0, seed=7
    )
    environment = job(recipe)
    events = run(environment)
    images = parse_index((environment.samples / INDEX_FILE).read_bytes()).images
    assert [(image.prompt, image.step) for image in images] == [
        ("a dog", 0),
        ("a red toy", 0),
        ("a dog", 2),
        ("a red toy", 2),
        ("a dog", 4),
        ("a red toy", 4),
    ]
    assert {(image.source, image.seed) for image in images} == {("after", 7)}
    announced = [event["path"] for event in events if event["event"] == "sample"]
    assert announced == [f"output/data/samples/{image.file}" for image in images]
    assert all((environment.root / path).is_file() for path in announced)
    phases = [event["name"] for event in events if event["event"] == "phase"]
    assert phases.count("training") == 3  # not once more behind the last step


def test_a_new_word_in_capitals_is_drawn_with_all_its_vectors(job: Any, run: Any) -> None:
    recipe = tiny.textual_inversion(validation_prompts=("a red <MY-DOG>",), validation_steps=3, evaluation_prompts=0)
    environment = job(recipe)
    run(environment)
    images = parse_index((environment.samples / INDEX_FILE).read_bytes()).images
    assert [(image.prompt, image.step) for image in images] == [("a red <my-dog>", 0), ("a red <my-dog>", 3)]


def test_a_base_model_that_draws_nothing_is_warned_of_before_training_and_once(
    job: Any, run: Any, tmp_path: Path
) -> None:
    folder = tiny.write_base_model(tmp_path / "model")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        tensors[name] = torch.zeros_like(tensors[name])
    save_file(tensors, weights, metadata={"format": "pt"})
    recipe = tiny.captioned_lora(validation_prompts=("a dog", "a toy"), validation_steps=2, evaluation_prompts=0)
    events = run(job(recipe, base_model=folder))
    warnings = [event["message"] for event in events if event["event"] == "warning"]
    assert [message.partition(".")[0] for message in warnings] == [
        "The validation images are of one colour all over, or nearly so"
    ] * 2  # of the base, and of what was made of it
    assert "check the base model" in warnings[0].lower()
    first_step = next(number for number, event in enumerate(events) if event["event"] == "step")
    assert events.index({"event": "warning", "message": warnings[0]}) < first_step
