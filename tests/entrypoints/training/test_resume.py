"""A run that is cut off, however, and started again ends in the same bytes as one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.stop import StopFlag, Stopped
from entrypoints.train import run_recipe
from entrypoints.training.checkpoint import MANIFEST_FILE, folder_of, newest_first, read_manifest, read_tensors, save
from orchestrator.contract.digest import hash_files
from orchestrator.contract.environment import EXIT_STOPPED, ROOT_VARIABLE, Environment
from orchestrator.contract.mixins import Denoising

RECIPES = {
    "lora": tiny.dreambooth(checkpoint_steps=2, keep_checkpoints=9, alpha=3, random_crop=True),
    "lora and text encoder in bf16": tiny.dreambooth(
        checkpoint_steps=2, keep_checkpoints=9, train_text_encoder=True, mixed_precision="bf16"
    ),
    "full, accumulating, with schedule": tiny.dreambooth(
        checkpoint_steps=2,
        keep_checkpoints=9,
        tuner="full",
        gradient_accumulation=2,
        lr_schedule="cosine",
        warmup_steps=1,
        prior_preservation=False,
    ),
    "lora in fp16": tiny.dreambooth(checkpoint_steps=2, keep_checkpoints=9, mixed_precision="fp16"),
    "captioned, in buckets, with shuffled tags": tiny.captioned_lora(
        checkpoint_steps=2, keep_checkpoints=9, tuner="lokr", shuffle_tags=True, trigger_word="sks", steps=6
    ),
    "differential preservation": tiny.dreambooth(
        checkpoint_steps=2, keep_checkpoints=9, output_preservation=True, train_text_encoder=True
    ),
    "pivotal": tiny.dreambooth(
        checkpoint_steps=2,
        keep_checkpoints=9,
        pivotal=True,
        rare_token="<my-dog>",
        instance_prompt="a photo of <my-dog> dog",
    ),
    "prodigy, averaged": tiny.dreambooth(checkpoint_steps=2, keep_checkpoints=9, optimizer="prodigy", ema_decay=0.9),
    "adafactor, with a noise offset": tiny.dreambooth(
        checkpoint_steps=2, keep_checkpoints=9, optimizer="adafactor", noise_offset=0.1
    ),
    "controlnet of several conditions": tiny.controlnet(
        checkpoint_steps=2, keep_checkpoints=9, conditions=("canny", "given"), random_crop=True, buckets=True, steps=6
    ),
    "textual inversion": tiny.textual_inversion(checkpoint_steps=2, keep_checkpoints=9),
    "ddpo, cut off within a round": tiny.rlhf(
        algorithm="ddpo", checkpoint_steps=1, keep_checkpoints=9, rounds=1, updates=2, inner_epochs=2, kl_weight=0.1
    ),
    "nft, cut off between rounds": tiny.rlhf(
        algorithm="nft", checkpoint_steps=1, keep_checkpoints=9, rounds=3, updates=2, kl_weight=0.1, trained_steps=2
    ),
    "dpo": tiny.rlhf(algorithm="dpo", checkpoint_steps=2, keep_checkpoints=9, steps=4, batch_size=2),
    "masked, cut anew": tiny.dreambooth(checkpoint_steps=2, keep_checkpoints=9, masked_loss=True, random_crop=True),
}


@pytest.mark.parametrize("name", RECIPES)
def test_going_on_from_a_checkpoint_changes_no_byte(name: str, job: Any, run: Any) -> None:
    recipe = RECIPES[name]
    whole, resumed = job(recipe, "whole"), job(recipe, "resumed")
    is_masked = isinstance(recipe, Denoising) and recipe.masked_loss
    for environment in (whole, resumed) if is_masked else ():
        tiny.write_masks(environment.root / "input" / "data" / "training")
    run(whole)
    shutil.copytree(folder_of(whole.checkpoints, 2), folder_of(resumed.checkpoints, 2))
    events = run(resumed)
    assert {"event": "resumed", "step": 2} in events
    warnings = [event["message"] for event in events if event["event"] == "warning"]
    expected = ("is for GPUs", "Train longer")  # half precision on a CPU; a few steps of a ControlNet
    assert not [message for message in warnings if not any(words in message for words in expected)]
    assert hash_files(resumed.model) == hash_files(whole.model)
    last = recipe.steps
    assert hash_files(folder_of(resumed.checkpoints, last)) == hash_files(folder_of(whole.checkpoints, last))


def test_a_run_goes_on_with_the_threads_it_began_with(job: Any, run: Any) -> None:
    recipe = RECIPES["textual inversion"]
    whole, resumed = job(recipe, "whole"), job(recipe, "resumed")
    run(whole)
    shutil.copytree(folder_of(whole.checkpoints, 2), folder_of(resumed.checkpoints, 2))
    torch.set_num_threads(2)
    run(resumed)
    assert torch.get_num_threads() == 1
    assert read_manifest(folder_of(resumed.checkpoints, recipe.steps)).machine.threads == 1


def test_a_run_that_goes_on_elsewhere_says_so(job: Any, run: Any) -> None:
    environment = job(RECIPES["textual inversion"])
    run(environment)
    folder = folder_of(environment.checkpoints, 3)
    manifest, tensors = read_manifest(folder), dict(read_tensors(folder, torch.device("cpu")))
    libraries = {**manifest.machine.libraries, "diffusers": "0.1"}
    machine = manifest.machine.model_copy(update={"device": "cuda (NVIDIA H100)", "libraries": libraries})
    save(environment.checkpoints, manifest.model_copy(update={"machine": machine}), tensors, keep=2)
    events = run(environment)
    assert {"event": "resumed", "step": 3} in events
    (warning,) = [event["message"] for event in events if event["event"] == "warning"]
    assert "device (was cuda (NVIDIA H100)" in warning
    assert "diffusers (was 0.1" in warning
    assert "torch" not in warning


def test_validation_pictures_of_the_last_step_before_a_stop_are_not_lost(job: Any, run: Any) -> None:
    recipe = tiny.textual_inversion(validation_prompts=("a dog",), validation_steps=2, evaluation_prompts=0)
    whole, stopped = job(recipe, "whole"), job(recipe, "stopped")
    run(whole)
    stop = StopFlag()
    with pytest.raises(Stopped), redirect_stdout(tiny.StopAfter(2, stop)):
        run_recipe(stopped, stop)
    assert newest_step(stopped) == 2
    run(stopped)
    assert hash_files(stopped.samples) == hash_files(whole.samples) != {}


def newest_step(environment: Environment) -> int:
    """Return the step of the newest checkpoint."""
    return int(next(newest_first(environment.checkpoints)).name.rpartition("-")[2])


def test_a_damaged_checkpoint_is_passed_over(job: Any, run: Any) -> None:
    environment = job(RECIPES["textual inversion"])
    run(environment)
    before = hash_files(environment.model)
    (folder_of(environment.checkpoints, 3) / MANIFEST_FILE).write_text("{")
    events = run(environment)
    assert {"event": "resumed", "step": 2} in events
    assert any(event["event"] == "warning" and "step-00000003" in event["message"] for event in events)
    assert hash_files(environment.model) == before


def test_a_finished_run_is_not_trained_again(job: Any, run: Any) -> None:
    environment = job(RECIPES["textual inversion"])
    run(environment)
    shutil.rmtree(environment.model)
    assert not [event for event in run(environment) if event["event"] == "step"]
    assert (environment.model / "learned_embeds.safetensors").is_file()


def test_other_pictures_are_not_mixed_into_a_run(job: Any, run: Any) -> None:
    environment = job(RECIPES["textual inversion"])
    run(environment)
    (environment.root / "input" / "data" / "training" / "0.png").unlink()
    with pytest.raises(TrainingError, match="training data changed"):
        run(environment)


@pytest.fixture
def process() -> Iterator[Callable[[Environment], subprocess.Popen[str]]]:
    """Start the job as a process of its own; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(environment: Environment) -> subprocess.Popen[str]:
        bundle = str(Path(__file__).parents[3])
        variables = {**os.environ, ROOT_VARIABLE: str(environment.root), "PYTHONPATH": bundle, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "entrypoints.train"]
        started.append(subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def wait_for(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """Read the process's events up to one of a kind."""
    assert process.stdout
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if found["event"] == event:
            return found
    raise AssertionError(f"the process ended before it said {event}")


def test_a_process_that_is_stopped_then_killed_ends_in_the_same_bytes(job: Any, run: Any, process: Any) -> None:
    recipe = tiny.dreambooth(steps=30, checkpoint_steps=5)
    whole, cut = job(recipe, "whole"), job(recipe, "cut")

    stopped = process(cut)
    step = wait_for(stopped, "step")["step"]
    stopped.send_signal(signal.SIGTERM)
    saved = wait_for(stopped, "checkpoint")["step"]
    assert stopped.wait() == EXIT_STOPPED
    assert step <= saved < recipe.steps
    assert not cut.model.exists()

    killed = process(cut)
    assert wait_for(killed, "resumed")["step"] == saved
    later = wait_for(killed, "checkpoint")["step"]
    killed.kill()
    killed.wait()
    assert not cut.model.exists()

    resumed = next(event for event in run(cut) if event["event"] == "resumed")
    assert resumed["step"] >= later > saved
    run(whole)
    assert hash_files(cut.model) == hash_files(whole.model)
