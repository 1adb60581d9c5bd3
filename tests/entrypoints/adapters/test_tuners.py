"""What trains and, above all, what does not."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import inject_adapter_in_model
from safetensors.torch import load_file

from entrypoints.adapters.embedding import Embedding
from entrypoints.adapters.lora import Lora, make_config
from entrypoints.adapters.low_rank_layer import LowRankLinear
from entrypoints.models.base import BaseModel
from entrypoints.recipes.textual_inversion import prompts_with
from entrypoints.runtime.failures import TrainingError
from entrypoints.training.checkpoint import folder_of, read_tensors
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, Stream
from entrypoints.training.latents import latents_of
from entrypoints.training.loop import fit
from entrypoints.training.run import Run
from orchestrator.contract.adapter import EMBEDDINGS_FILE


def state(base: BaseModel) -> dict[str, torch.Tensor]:
    modules = {"unet": base.denoiser, **base.text_encoders, "vae": base.pipeline.vae}
    return {
        f"{part}.{key}": value.clone() for part, module in modules.items() for key, value in module.state_dict().items()
    }


def test_only_the_new_rows_change_even_under_weight_decay(family_base: BaseModel, job: Any) -> None:
    base, recipe = family_base, tiny.textual_inversion(weight_decay=0.5)
    run = Run(job(recipe), recipe)
    before = state(base)
    tuner = Embedding(base, placeholder="<my-dog>", initializer="dog", vectors=2)
    start = {part: embedding.rows.detach().clone() for part, embedding in tuner.embeddings.items()}
    images = run.training_images()
    stream = Stream("subject", latents_of(base, recipe, images), prompts_with(recipe, images))
    fit(run, base, recipe, tuner, DenoisingObjective(base, recipe, [stream], PromptEncoder(base, frozen=False)))
    after = state(base)
    tables = [name.removesuffix(".rows") for name in after if name.endswith("token_embedding.rows")]
    assert len(tables) == len(base.text_encoders)
    for table in tables:
        moved = after.pop(f"{table}.rows")
        assert (moved != start[table.partition(".")[0]]).any(dim=1).all()  # each row was trained
        after[f"{table}.weight"] = after.pop(f"{table}.known.weight")
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_new_rows_start_as_the_initializer(base: BaseModel) -> None:
    word = base.tokenizers[0].convert_tokens_to_ids("dog</w>")
    known = base.text_encoders["text_encoder"].get_input_embeddings().weight[word].clone()
    tuner = Embedding(base, placeholder="<my-dog>", initializer="dog", vectors=2)
    assert torch.equal(tuner.embeddings["text_encoder"].word().detach(), known.repeat(2, 1))


def test_a_word_that_ends_in_its_initializer_still_does_when_it_is_trained(
    family_base: BaseModel, job: Any, tmp_path: Path
) -> None:
    base, recipe = family_base, tiny.textual_inversion(vectors=3, hold_initializer=True)
    known = {}
    for (part, encoder), tokenizer in zip(base.text_encoders.items(), base.tokenizers, strict=True):
        word = tokenizer.convert_tokens_to_ids("dog</w>")
        known[part] = encoder.get_input_embeddings().weight[word].clone()
    run = Run(job(recipe), recipe)
    tuner = Embedding(base, placeholder="<my-dog>", initializer="dog", vectors=3, hold_initializer=True)
    images = run.training_images()
    stream = Stream("subject", latents_of(base, recipe, images), prompts_with(recipe, images))
    fit(run, base, recipe, tuner, DenoisingObjective(base, recipe, [stream], PromptEncoder(base, frozen=False)))
    tuner.save(tmp_path, {})
    saved = load_file(tmp_path / EMBEDDINGS_FILE)
    for part, row in known.items():
        rows = saved[tuner.keys[part]]
        assert rows.shape == (3, row.numel())
        assert torch.equal(rows[2], row)
        assert (rows[:2] != row).any(dim=1).all()


def test_textual_inversion_publishes_a_word_that_ends_in_its_initializer(base: BaseModel, job: Any, run: Any) -> None:
    recipe = tiny.textual_inversion(vectors=3, hold_initializer=True, checkpoint_steps=1)
    environment = job(recipe)
    run(environment)
    word = base.tokenizers[0].convert_tokens_to_ids("dog</w>")
    known = base.text_encoders["text_encoder"].get_input_embeddings().weight[word]
    rows = load_file(environment.model / EMBEDDINGS_FILE)[recipe.placeholder_token]
    assert rows.shape[0] == 3
    assert torch.equal(rows[2], known)
    assert not torch.equal(rows[1], known)
    kept = dict(read_tensors(folder_of(environment.checkpoints, recipe.steps), torch.device("cpu")))
    assert kept["weight/text_encoder.rows"].shape[0] == 2


def test_a_fresh_lora_changes_no_picture(base: BaseModel) -> None:
    noisy, timesteps = torch.randn(2, 4, 16, 16), torch.tensor([10, 900])
    conditions = base.encode_prompts(["a dog", "a toy"])
    plain = base.predict(noisy, timesteps, conditions)
    Lora(base, rank=4, alpha=4, text_encoder=False, seed=0)
    torch.testing.assert_close(base.predict(noisy, timesteps, conditions), plain)


def test_a_lora_sits_on_every_attention_projection(family_base: BaseModel) -> None:
    base, tuner = family_base, Lora(family_base, rank=4, alpha=4, text_encoder=True, seed=0)
    projections = {name.split(".lora_")[0] for name in tuner.parameters}
    expected = set()
    for part, module in {"unet": base.denoiser, **base.text_encoders}.items():
        ends = ("to_q", "to_k", "to_v", "to_out.0") if part == "unet" else ("q_proj", "k_proj", "v_proj", "out_proj")
        expected |= {f"{part}.{name}" for name, _ in module.named_modules() if name.endswith(ends)}
    assert projections == expected


def gradients(module: torch.nn.Module, kept: torch.Tensor, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a layer's inputs and trained parameters, and its outputs."""
    inputs = inputs.clone().requires_grad_()
    outputs = module(inputs)
    module.zero_grad()
    (outputs * kept).sum().backward()
    assert inputs.grad is not None
    found = {"outputs": outputs.detach(), "inputs": inputs.grad}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            found[name] = parameter.grad
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 5, 6)])
def test_a_lora_has_pefts_outputs_and_gradients(shape: tuple[int, ...], bias: bool) -> None:
    """With a scale other than 1, with and without bias, for one row and for batches of them."""
    inputs, kept = torch.randn(shape), torch.randn((*shape[:-1], 4))
    found = []
    for ours in (True, False):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 4, bias=bias)).requires_grad_(False)
        config = make_config(2, 6, ["0"])
        if not ours:
            config._custom_modules = None
        inject_adapter_in_model(config, model)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter)
        assert isinstance(model[0], LowRankLinear) == ours
        found.append(gradients(model, kept, inputs))
    assert set(found[0]) == {"outputs", "inputs", "0.lora_A.default.weight", "0.lora_B.default.weight"}
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("placeholder", ["dog", "a", "Dog", "DOG"])
def test_a_placeholder_that_exists_is_refused(base: BaseModel, placeholder: str) -> None:
    with pytest.raises(TrainingError, match="in the vocabulary") as caught:
        Embedding(base, placeholder=placeholder, initializer="dog", vectors=1)
    assert caught.value.kind == "token"


def test_a_placeholder_that_would_be_read_as_something_else_is_refused(base: BaseModel) -> None:
    with pytest.raises(TrainingError, match="does not read") as caught:
        Embedding(base, placeholder="<My-Dog>", initializer="dog", vectors=3)
    assert "<my-dog>" in caught.value.next_step


@pytest.mark.parametrize("initializer", ["puppy", "reddog"])
def test_an_initializer_of_several_tokens_is_refused(base: BaseModel, initializer: str) -> None:
    with pytest.raises(TrainingError, match="must be one") as caught:
        Embedding(base, placeholder="<my-dog>", initializer=initializer, vectors=1)
    assert caught.value.kind == "token"


def test_trained_weights_stay_float32_under_mixed_precision(job: Any, run: Any) -> None:
    environment = job(tiny.dreambooth(mixed_precision="bf16", evaluation_prompts=0))
    run(environment)
    tensors = dict(read_tensors(folder_of(environment.checkpoints, 4), torch.device("cpu")))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
