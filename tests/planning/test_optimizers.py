"""An optimizer that the target cannot run is refused before anything is stored."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SpecError
from orchestrator.planning.checks import check_job
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.settings import AwsSettings
from orchestrator.specs.building import build_spec
from orchestrator.specs.job import JobSpec


def job(recipe: str, **settings: Any) -> JobSpec:
    return build_spec({"recipe": recipe, "settings": {"optimizer": "adamw8bit", **settings}})


@pytest.mark.parametrize("recipe", ["dreambooth", "lora", "textual-inversion"])
def test_8_bits_are_refused_on_a_machine_without_a_gpu(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SpecError, match="cannot be used on this machine; nothing was started") as raised:
        check_job(job(recipe), PreparedInputs())
    (problem,) = raised.value.problems
    assert problem.what == "adamw8bit is for GPUs, and this machine has none"
    assert "-s optimizer=adamw" in raised.value.next_step


def test_8_bits_need_their_package_beside_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(SpecError) as raised:
        check_job(job("lora"), PreparedInputs())
    assert raised.value.problems[0].fix == "pip install bitsandbytes"
    monkeypatch.delitem(sys.modules, "bitsandbytes")
    (tmp_path / "bitsandbytes.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    check_job(job("lora"), PreparedInputs())


def test_8_bits_are_planned_for_sagemaker_whatever_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    account = AwsSettings(
        account_id="111122223333",
        region="us-east-1",
        bucket="orchestrator-111122223333",
        role_arn="arn:aws:iam::111122223333:role/orchestrator-job",
        training_image="111122223333.dkr.ecr.us-east-1.amazonaws.com/orchestrator:1",
    )
    assert check_job(job("lora"), PreparedInputs(), account).placements
