"""Pivotal tuning: a new word and an adapter in one run."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from entrypoints.training.checkpoint import folder_of, read_tensors
from orchestrator.contract.adapter import EMBEDDINGS_FILE, LORA_FILE, AdapterManifest
from orchestrator.contract.recipe import recipe_class

SETTINGS = {"pivotal": True, "rare_token": "<my-dog>", "instance_prompt": "a photo of <my-dog> dog", "vectors": 2}


def tensors_of(checkpoints: Path, step: int) -> dict[str, torch.Tensor]:
    return dict(read_tensors(folder_of(checkpoints, step), torch.device("cpu")))


def test_both_are_trained_and_the_word_stays_after_its_share_of_the_steps(job: Any, run: Any) -> None:
    recipe = tiny.dreambooth(**SETTINGS, steps=6, embedding_share=0.5, checkpoint_steps=1, keep_checkpoints=9)
    environment = job(recipe)
    run(environment)
    at = {step: tensors_of(environment.checkpoints, step) for step in (1, 3, 6)}
    rows = "weight/text_encoder.rows"
    assert at[1][rows].shape[0] == 2
    assert not torch.equal(at[1][rows], at[3][rows])
    assert torch.equal(at[3][rows], at[6][rows])
    adapters = [name for name in at[1] if name.startswith("weight/unet.")]
    assert adapters
    assert all(not torch.equal(at[3][name], at[6][name]) for name in adapters)
    assert load_file(environment.model / EMBEDDINGS_FILE)["<my-dog>"].shape[0] == 2
    assert (environment.model / LORA_FILE).is_file()
    manifest = AdapterManifest.read(environment.model)
    assert (manifest.kind, manifest.learned_word) == ("pivotal", "<my-dog>")


def test_the_base_model_is_asked_for_the_class_alone() -> None:
    (judged,) = tiny.dreambooth(**SETTINGS).judged_by
    assert "<my-dog> dog" in judged.after
    assert "<my-dog>" not in judged.before + judged.text
    assert judged.before == judged.text


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"tuner": "full"}, "two files"),
        ({"tuner": "lokr"}, "two files"),
        ({"train_text_encoder": True}, "leave train_text_encoder out"),
        ({"optimizer": "prodigy"}, "optimizer=adamw"),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        recipe_class("dreambooth")(**SETTINGS, **settings)


def test_its_rows_start_from_the_class_unless_a_person_says_otherwise() -> None:
    assert tiny.dreambooth(**SETTINGS).initializer == "dog"
    assert tiny.dreambooth(**SETTINGS, initializer_token="toy").initializer == "toy"
