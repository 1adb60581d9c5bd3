"""What only a GPU shows. `make test-gpu` runs these there, and the tests of resuming, which need none but differ."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import tiny
import torch

from entrypoints.runtime.failures import TrainingError
from entrypoints.training.checkpoint import folder_of, read_manifest
from orchestrator.contract.digest import hash_files
from tests.conftest import OWN_GPU

pytestmark = pytest.mark.skipif(OWN_GPU not in os.environ, reason="`make test-gpu` runs them, and fails without a GPU")


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Leave this process a few megabytes of the GPU."""
    torch.cuda.empty_cache()
    in_all = torch.cuda.get_device_properties(0).total_memory
    left = torch.cuda.memory_reserved() + 24 * 2**20
    torch.cuda.set_per_process_memory_fraction(left / in_all)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_job_trains_on_the_gpu_and_says_so(job: Any, run: Any) -> None:
    environment = job(tiny.dreambooth(checkpoint_steps=4))
    run(environment)
    machine = read_manifest(folder_of(environment.checkpoints, 4)).machine
    assert machine.device == f"cuda ({torch.cuda.get_device_name()})"


def test_moments_of_8_bits_go_on_to_the_bit(job: Any, run: Any) -> None:
    pytest.importorskip("bitsandbytes", reason="a package for GPUs")
    recipe = tiny.dreambooth(optimizer="adamw8bit", tuner="full", prior_preservation=False, checkpoint_steps=2)
    whole, resumed = job(recipe, "whole"), job(recipe, "resumed")
    run(whole)
    shutil.copytree(folder_of(whole.checkpoints, 2), folder_of(resumed.checkpoints, 2))
    assert {"event": "resumed", "step": 2} in run(resumed)
    assert hash_files(resumed.model) == hash_files(whole.model)


@pytest.mark.usefixtures("little_memory")
def test_a_gpu_with_too_little_memory_ends_the_job_with_what_helps(job: Any, run: Any) -> None:
    with pytest.raises(TrainingError, match="The GPU has too little memory") as caught:
        run(job(tiny.dreambooth(batch_size=4000, evaluation_prompts=0, prior_preservation=False)))
    assert caught.value.kind == "out-of-memory"
    assert "gradient_checkpointing=true" in caught.value.next_step
