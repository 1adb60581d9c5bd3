"""From files to a base model: from any variant of the weights, and never with random ones in place of missing ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from entrypoints.models.hub import fetch_from_hub
from entrypoints.models.loading import load_base_model
from entrypoints.runtime.failures import TrainingError, advising_on_memory
from entrypoints.runtime.ranks import Ranks
from entrypoints.training.run import Run
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.environment import SCORER_CHANNEL
from orchestrator.contract.model_configs import SCHEDULERS
from orchestrator.contract.model_layout import files_sha256, weight_files
from tests.models.server import ask_only, serving
from tests.stand_ins.model import small_model

CPU = torch.device("cpu")
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(base_folder: Path, tmp_path: Path) -> Path:
    """A tiny model to change."""
    shutil.copytree(base_folder, tmp_path / "model")
    return tmp_path / "model"


def refused(folder: Path) -> TrainingError:
    with pytest.raises(TrainingError) as caught:
        load_base_model(folder, "org/tiny", None, CPU)
    assert caught.value.kind == "base-model"
    assert "--base-model" in caught.value.next_step
    assert str(folder) not in caught.value.message
    return caught.value


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_clip_of_a_model_is_loaded_where_it_measures_figures(job: Any, base_folder: Path) -> None:
    judged, unjudged = tiny.dreambooth(), tiny.dreambooth(evaluation_prompts=0)
    by_another = job(judged, "scorer")
    (by_another.root / "input" / "data" / SCORER_CHANNEL).symlink_to(base_folder / "clip")
    later_rank = Ranks(rank=1, ranks=1)  # of one, so that it connects to no others
    assert Run(job(judged, "judged"), judged).load_base_model().clip is not None
    for run in (
        Run(job(unjudged, "unjudged"), unjudged),
        Run(by_another, judged),
        Run(job(judged, "later"), judged, ranks=later_rank),
    ):
        assert run.load_base_model().clip is None


def test_a_model_with_weights_of_half_precision_alone_is_trained(job: Any, run: Any, folder: Path) -> None:
    for path in folder.glob("*/*.safetensors"):
        halves = {name: tensor.half() for name, tensor in load_file(path).items()}
        save_file(halves, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        path.unlink()
    (folder / "unet" / "LICENSE").touch()  # a name without a dot
    base = load_base_model(folder, "org/tiny", None, CPU)
    for module in (base.denoiser, base.pipeline.vae, base.clip, *base.text_encoders.values()):
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    environment = job(tiny.dreambooth(steps=1), base_model=folder)
    run(environment)
    manifest = AdapterManifest.read(environment.model)
    assert manifest.base_model.fingerprint == files_sha256(folder, weight_files(folder))
    assert {path.name.split(".")[1] for path in weight_files(folder)} == {"fp16"}
    assert manifest.metrics  # by the CLIP of the model, which is of half precision too


def test_weights_in_shards_are_loaded(folder: Path) -> None:
    expected = load_base_model(folder, "org/tiny", None, CPU).denoiser.state_dict()
    path = folder / UNET
    tensors = load_file(path)
    listed = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        shard = path.with_name(f"{path.stem}-0000{number}-of-00002.safetensors")
        save_file({name: tensors[name] for name in names}, shard, metadata={"format": "pt"})
        listed |= dict.fromkeys(names, shard.name)
    path.with_name(f"{path.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    path.unlink()
    found = load_base_model(folder, "org/tiny", None, CPU).denoiser.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "file",
    [
        UNET,
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "clip/model.safetensors",
    ],
)
def test_weights_that_are_no_numbers_are_refused_at_load(folder: Path, file: str, value: float) -> None:
    tensors = load_file(folder / file)
    name = min(tensors)
    tensors[name].view(-1)[0] = value
    save_file(tensors, folder / file, metadata={"format": "pt"})
    error = refused(folder)
    part = file.partition("/")[0]
    assert f'The base model "org/tiny" cannot be loaded: {part}/ holds NaN or infinity in' in error.message


def test_missing_weights_are_not_replaced_by_random_ones(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    del tensors["mid_block.resnets.0.conv1.weight"]
    save_file(tensors, folder / UNET, metadata={"format": "pt"})
    assert "the weights in unet/ lack mid_block.resnets.0.conv1.weight" in refused(folder).message


def set_scheduler(folder: Path, name: str, **values: Any) -> None:
    change(folder / "scheduler" / "scheduler_config.json", _class_name=name, **values)
    change(folder / "model_index.json", scheduler=["diffusers", name])


@pytest.mark.parametrize(
    ("scheduler", "values"),
    [
        ("EulerDiscreteScheduler", {"interpolation_type": "cubic"}),
        ("DDIMScheduler", {"prediction_type": "epsilon"}),  # of noise alone: with zero terminal SNR it divides by 0
    ],
)
def test_what_only_drawing_finds_out_is_tried_before_training(
    folder: Path, scheduler: str, values: dict[str, Any]
) -> None:
    set_scheduler(folder, scheduler, **values)
    assert 'The base model "org/tiny" cannot be loaded' in refused(folder).message


@pytest.mark.parametrize(
    ("scheduler", "steps", "possible"),
    [
        ({"name": "LCMScheduler"}, 60, 50),
        ({"name": "LCMScheduler", "original_inference_steps": 20}, 25, 10),
        ({"name": "DDIMScheduler", "num_train_timesteps": 9}, 25, 4),
    ],
)
def test_steps_in_which_a_scheduler_cannot_draw_are_refused_before_training(
    folder: Path, job: Any, run: Any, capfd: pytest.CaptureFixture[str], scheduler: Any, steps: int, possible: int
) -> None:
    set_scheduler(folder, **scheduler)
    with pytest.raises(TrainingError, match=f"cannot draw in {steps} steps with its {scheduler['name']}: ") as caught:
        run(job(tiny.dreambooth(inference_steps=steps), base_model=folder))
    assert caught.value.next_step == f"draw in another number of steps: -s inference_steps={possible}"
    assert '"step"' not in capfd.readouterr().out
    silent = {"prior_preservation": False, "evaluation_prompts": 0}
    assert run(job(tiny.dreambooth(inference_steps=steps, **silent), "silent", base_model=folder))


def test_what_only_the_library_refuses_is_told_without_paths_of_the_job(folder: Path) -> None:
    change(folder / "unet" / "config.json", act_fn="nonsense")
    assert 'The base model "org/tiny" cannot be loaded' in refused(folder).message


def test_a_model_is_named_as_its_owner_knows_it(folder: Path, tmp_path: Path) -> None:
    change(folder / "unet" / "config.json", act_fn="nonsense")
    channel = tmp_path / "base_model"
    channel.symlink_to(folder)
    with pytest.raises(TrainingError) as caught:
        load_base_model(channel, "./model", None, CPU)
    assert f'The base model "{folder}" cannot be loaded' in caught.value.message
    assert str(channel) not in caught.value.message


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_a_scheduler_that_is_accepted_can_draw(folder: Path, name: str) -> None:
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    scheduler = getattr(diffusers, name).from_config(config)
    scheduler.set_timesteps(4)
    noisy = torch.ones(1, 4, 8, 8) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(noisy, timestep)
        (noisy, *_) = scheduler.step(torch.ones(1, 4, 8, 8), timestep, noisy, return_dict=False)
    assert noisy.isfinite().all()


@pytest.mark.parametrize("length", [None, 10**30, 4096])
def test_a_tokenizer_without_a_usable_length_takes_the_text_encoders(folder: Path, length: int | None) -> None:
    expected = load_base_model(folder, "org/tiny", None, CPU).encode_prompts(["a dog"])
    path = folder / "tokenizer" / "tokenizer_config.json"
    change(path, model_max_length=length)
    if length is None:
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "model_max_length"}))
    base = load_base_model(folder, "org/tiny", None, CPU)
    found = base.encode_prompts(["a dog"])
    torch.testing.assert_close(found, expected)
    positions = json.loads((folder / "text_encoder" / "config.json").read_text())["max_position_embeddings"]
    assert base.tokenizers[0].model_max_length == positions


def test_a_model_of_the_hub_in_half_precision_alone_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = small_model()
    halves = {name.replace(".safetensors", ".fp16.safetensors"): content for name, content in files.items()}
    with serving() as server:
        ask_only(server, tmp_path, monkeypatch)
        server.add("someone/half", halves)
        server.add("someone/both", {**halves, **files})
        half, _ = fetch_from_hub("someone/half", None)
        both, _ = fetch_from_hub("someone/both", None)
    for folder, expected in ((half, halves), (both, files)):
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == set(expected)


def test_memory_is_saved_by_what_the_job_has_not_set_already() -> None:
    for recipe, advice in (
        (tiny.dreambooth(), "gradient_checkpointing=true"),
        (tiny.dreambooth(batch_size=1, gradient_checkpointing=True, mixed_precision="bf16"), "lower resolution;"),
    ):
        with pytest.raises(TrainingError) as caught, advising_on_memory(recipe.memory_advice):
            torch.empty(2**60)
        assert caught.value.kind == "out-of-memory"
        assert advice in caught.value.next_step
        assert ("checkpointing" in caught.value.next_step) == (not recipe.gradient_checkpointing)
