"""Images drawn during training."""

from typing import Any

import tiny

from orchestrator.contract.samples import INDEX_FILE, parse_index


def test_validation_images_are_announced_and_listed_with_their_steps(job: Any, run: Any) -> None:
    recipe = tiny.dreambooth(
        validation_prompts=("a dog", "a red toy"), validation_steps=2, evaluation_prompts=0, seed=7
    )
    environment = job(recipe)
    events = run(environment)
    images = parse_index((environment.samples / INDEX_FILE).read_bytes()).images
    assert [(image.prompt, image.step) for image in images] == [
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
    assert phases.count("training") == 2  # not once more behind the last step


def test_a_new_word_in_capitals_is_drawn_with_all_its_vectors(job: Any, run: Any) -> None:
    recipe = tiny.textual_inversion(validation_prompts=("a red <MY-DOG>",), validation_steps=3, evaluation_prompts=0)
    environment = job(recipe)
    run(environment)
    (image,) = parse_index((environment.samples / INDEX_FILE).read_bytes()).images
    assert image.prompt == "a red <my-dog>"
