"""The base model in the repository: what plain diffusers and transformers make of it."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel

from pretraining.examples import drawn_scenes, stacked
from pretraining.export import BYTE_LIMIT, weight_bytes
from pretraining.pictures import draw
from pretraining.scenes import SHAPES

FOLDER = Path(__file__).parents[2] / "orchestrator" / "assets" / "base_model"


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_weights_are_within_the_limit() -> None:
    assert 8_000_000 < weight_bytes(FOLDER) <= BYTE_LIMIT


def test_plain_diffusers_loads_it_as_float32(pipe: StableDiffusionPipeline) -> None:
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float32}
    assert pipe.unet.config.cross_attention_dim == pipe.text_encoder.config.hidden_size
    assert pipe.scheduler.config.prediction_type == "v_prediction"


def test_every_resolution_has_attention_for_lora_to_act_on(pipe: StableDiffusionPipeline) -> None:
    places = {name.split(".attentions")[0] for name, _ in pipe.unet.named_modules() if name.endswith("attn2.to_q")}
    assert places == {"down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.0", "up_blocks.1"}


def test_the_clips_text_tower_is_the_pipelines(pipe: StableDiffusionPipeline) -> None:
    clip = CLIPModel.from_pretrained(FOLDER / "clip").text_model.state_dict()
    assert all(torch.equal(value, clip[name]) for name, value in pipe.text_encoder.state_dict().items())


def test_the_text_states_tell_shapes_apart(pipe: StableDiffusionPipeline) -> None:
    states = []
    for shape in SHAPES:
        ids = pipe.tokenizer(f"a photo of a red {shape}", return_tensors="pt").input_ids
        states.append(pipe.text_encoder(ids).last_hidden_state[0, -2])  # at the shape's word
    norm = torch.stack(states).norm(dim=-1).mean()
    nearest = min((a - b).norm() for index, a in enumerate(states) for b in states[:index])
    assert nearest > 0.3 * norm


def test_it_draws_pictures_and_the_seed_decides_which(pipe: StableDiffusionPipeline) -> None:
    def picture(seed: int) -> bytes:
        source = torch.Generator().manual_seed(seed)
        return pipe("a photo of a red circle", num_inference_steps=4, generator=source).images[0].tobytes()

    assert picture(1) == picture(1) != picture(2)


def test_the_autoencoder_keeps_drawn_pictures(pipe: StableDiffusionPipeline) -> None:
    from pretraining.evaluation import psnr  # imports much; only this test needs it

    assert psnr(pipe, stacked([draw(scene) for scene in drawn_scenes(4, "tests", 16)])) > 20
