"""What trains and, above all, what does not."""

from typing import Any

import pytest
import tiny
import torch

from entrypoints.adapters.embeddings import Embeddings
from entrypoints.adapters.lora import Lora
from entrypoints.models.stable_diffusion import BaseModel
from entrypoints.recipes.textual_inversion import templates
from entrypoints.runtime.failures import TrainingError
from entrypoints.training.checkpoint import folder_of, load_tensors
from entrypoints.training.latents import latents_of
from entrypoints.training.loop import fit
from entrypoints.training.objective import Objective, PromptEncoder, Stream
from entrypoints.training.run import Run


def state(base: BaseModel) -> dict[str, torch.Tensor]:
    modules = {"unet": base.unet, "text_encoder": base.text_encoder, "vae": base.vae}
    return {
        f"{part}.{key}": value.clone() for part, module in modules.items() for key, value in module.state_dict().items()
    }


def test_only_the_new_rows_change_even_under_weight_decay(base: BaseModel, job: Any) -> None:
    recipe = tiny.textual_inversion(weight_decay=0.5)
    run = Run(job(recipe), recipe)
    before = state(base)
    tuner = Embeddings(base, placeholder="<my-dog>", initializer="dog", vectors=2)
    start = tuner.embedding.rows.detach().clone()
    pictures = run.pictures()
    stream = Stream("subject", latents_of(base, recipe, pictures), templates(recipe, pictures))
    fit(run, base, tuner, Objective(base, recipe, [stream], PromptEncoder(base, frozen=False)).losses)
    after = state(base)
    table = "text_encoder.embeddings.token_embedding"
    moved = after.pop(f"{table}.rows")
    after[f"{table}.weight"] = after.pop(f"{table}.known.weight")
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert (moved != start).any(dim=1).all()  # each row was trained


def test_new_rows_start_as_the_initializer(base: BaseModel) -> None:
    word = base.tokenizer.convert_tokens_to_ids("dog</w>")
    known = base.text_encoder.get_input_embeddings().weight[word].clone()
    tuner = Embeddings(base, placeholder="<my-dog>", initializer="dog", vectors=2)
    assert torch.equal(tuner.embedding.rows.detach(), known.repeat(2, 1))


def test_a_fresh_lora_changes_no_picture(base: BaseModel) -> None:
    noisy, timesteps = torch.randn(2, 4, 16, 16), torch.tensor([10, 900])
    conditions = base.encode_prompts(["a dog", "a toy"])
    plain = base.predict(noisy, timesteps, conditions)
    Lora(base, rank=4, alpha=4, text_encoder=False, seed=0)
    torch.testing.assert_close(base.predict(noisy, timesteps, conditions), plain)


def test_a_lora_sits_on_every_attention_projection(base: BaseModel) -> None:
    tuner = Lora(base, rank=4, alpha=4, text_encoder=True, seed=0)
    projections = {name.split(".lora_")[0] for name in tuner.parameters}
    expected = {
        f"{part}.{name}"
        for part, module, ends in (
            ("unet", base.unet, ("to_q", "to_k", "to_v", "to_out.0")),
            ("text_encoder", base.text_encoder, ("q_proj", "k_proj", "v_proj", "out_proj")),
        )
        for name, _ in module.named_modules()
        if name.endswith(ends)
    }
    assert projections == expected


@pytest.mark.parametrize("placeholder", ["dog", "a", "Dog", "DOG"])
def test_a_placeholder_that_exists_is_refused(base: BaseModel, placeholder: str) -> None:
    with pytest.raises(TrainingError, match="in the vocabulary") as caught:
        Embeddings(base, placeholder=placeholder, initializer="dog", vectors=1)
    assert caught.value.kind == "token"


def test_a_placeholder_that_would_be_read_as_something_else_is_refused(base: BaseModel) -> None:
    with pytest.raises(TrainingError, match="does not read") as caught:
        Embeddings(base, placeholder="<My-Dog>", initializer="dog", vectors=3)
    assert "<my-dog>" in caught.value.next_step


@pytest.mark.parametrize("initializer", ["puppy", "reddog"])
def test_an_initializer_of_several_tokens_is_refused(base: BaseModel, initializer: str) -> None:
    with pytest.raises(TrainingError, match="must be one") as caught:
        Embeddings(base, placeholder="<my-dog>", initializer=initializer, vectors=1)
    assert caught.value.kind == "token"


def test_trained_weights_stay_float32_under_mixed_precision(job: Any, run: Any) -> None:
    environment = job(tiny.dreambooth(mixed_precision="bf16", evaluation_prompts=0))
    run(environment)
    tensors = load_tensors(folder_of(environment.checkpoints, 4), torch.device("cpu"))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
