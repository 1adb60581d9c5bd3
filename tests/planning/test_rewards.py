"""Rewards in a plan: what computes each, which weights it needs, and what is refused before anything starts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from orchestrator.cli.plans import reward_facts
from orchestrator.contract.datasets import NOTHING, DatasetKind
from orchestrator.contract.environment import Wait
from orchestrator.contract.linear_head import HEAD_FILE, require_head
from orchestrator.contract.mixins import Rewarded
from orchestrator.contract.rewards import REWARDS_CHANNEL, RewardUse
from orchestrator.contract.text_model import require_text_model
from orchestrator.errors import SpecError
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.planning.plan import Plan, plan_here
from orchestrator.planning.rewards import check_rewards, planned_rewards
from orchestrator.resources import AESTHETIC_HEAD, BUILTIN_MODEL
from orchestrator.settings import Settings
from orchestrator.specs.compute import Compute
from orchestrator.specs.job import JobSpec

HUB_MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"


class Raising(Rewarded):
    """A recipe that has rewards and nothing else."""

    dataset: ClassVar[DatasetKind] = NOTHING


def spec(*rewards: Any, evaluated: Any = (), **settings: Any) -> JobSpec:
    job = {name: settings.pop(name) for name in ("scorer", "compute") if name in settings}
    recipe = Raising(rewards=rewards, evaluation_rewards=evaluated, **settings)
    return JobSpec(recipe=recipe, inputs={}, **job)


def write_head(path: Path, *sizes: int, prefix: str = "layers.") -> Path:
    tensors = {}
    for place in range(len(sizes) - 1):
        tensors[f"{prefix}{2 * place}.weight"] = np.ones((sizes[place + 1], sizes[place]), dtype="float32")
        tensors[f"{prefix}{2 * place}.bias"] = np.ones(sizes[place + 1], dtype="float32")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


@pytest.fixture
def scorer(tmp_path: Path) -> Path:
    folder = shutil.copytree(BUILTIN_MODEL / "clip", tmp_path / "scorer")
    for file in (BUILTIN_MODEL / "tokenizer").iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture
def text_model(tmp_path: Path) -> Path:
    folder = tmp_path / "text model"
    write_head(folder / "model.safetensors", 4, 4)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "notes.txt").write_text("mine")
    return folder


def problems(job: JobSpec, *, on_sagemaker: bool = False) -> dict[str, str]:
    """Return the place of each problem and what a person reads of it."""
    with pytest.raises(SpecError) as raised:
        check_rewards(job, on_sagemaker=on_sagemaker)
    return {problem.where: f"{problem.what} ({problem.fix})" for problem in raised.value.problems}


# What a person types.


def test_short_forms_are_read_and_survive_the_way_into_the_job() -> None:
    recipe = Raising(rewards=("jpeg-compressibility", "jpeg-incompressibility:-0.5"))
    assert [(use.name, use.weight) for use in recipe.rewards] == [
        ("jpeg-compressibility", 1.0),
        ("jpeg-incompressibility", -0.5),
    ]
    use = RewardUse(name="prompt-alignment", url="https://judge.example.com/x", question="What?", required=False)
    assert RewardUse.model_validate_json(use.model_dump_json()) == use


REFUSED = {
    "weight in words": ("aesthetic:much", "should be a number|valid number"),
    "no name": (":2", "is no name of a reward"),
    "infinite": ("aesthetic:inf", "finite|less than"),
    "path without use": ({"name": "jpeg-compressibility", "path": "x"}, "reads no weights"),
    "url without use": ({"name": "aesthetic", "url": "https://x.org"}, "asks no server"),
    "path of CLIP": ({"name": "prompt-alignment", "path": "x"}, "without url is measured by CLIP"),
    "password": ({"name": "prompt-alignment", "url": "https://me:secret@x.org"}, "holds a name or a password"),
    "not encrypted": ({"name": "prompt-alignment", "url": "http://x.org"}, "is not encrypted"),
    "no web address": ({"name": "prompt-alignment", "url": "file:///etc/passwd"}, "is no URL of a server"),
    "port": ({"name": "prompt-alignment", "url": "https://x.org:99999"}, "is no URL"),
    "unknown setting": ({"name": "aesthetic", "wieght": 2}, "Extra inputs"),
}


@pytest.mark.parametrize(("reward", "told"), REFUSED.values(), ids=REFUSED)
def test_a_reward_that_cannot_be_meant_is_refused(reward: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Raising(rewards=(reward,))


def test_a_server_on_this_machine_needs_no_encryption() -> None:
    for host in ("127.0.0.1:8000", "localhost", "[::1]:80"):
        assert RewardUse(name="prompt-alignment", url=f"http://{host}/judge").url


def test_an_evaluation_reward_is_one_that_is_not_trained_on() -> None:
    with pytest.raises(ValidationError, match='"aesthetic" is trained on too'):
        Raising(rewards=("aesthetic",), evaluation_rewards=("aesthetic:0.5",))
    with pytest.raises(ValidationError, match='"aesthetic" is named twice'):
        Raising(rewards=("aesthetic", "aesthetic:0.5"))
    with pytest.raises(ValidationError, match='"human" is no evaluation reward'):
        Raising(rewards=("aesthetic",), evaluation_rewards=("human",))
    with pytest.raises(ValidationError, match="at least 1 item"):
        Raising(rewards=())


# What is looked at before anything starts.


def test_what_the_built_in_model_has_needs_nothing_more() -> None:
    job = spec("jpeg-compressibility", "aesthetic", evaluated=("prompt-alignment",))
    assert check_rewards(job, on_sagemaker=True) == []
    lines = [reward.describe() for reward in planned_rewards(job)]
    assert lines == [
        "jpeg-compressibility (weight 1): in the job",
        "aesthetic (weight 1): in the job, by the base model's own CLIP, with the weights in " + str(AESTHETIC_HEAD),
        "prompt-alignment (evaluates only): in the job, by the base model's own CLIP",
    ]


def test_a_job_on_sagemaker_does_not_keep_its_gpu_while_people_label() -> None:
    held = spec("human").model_copy(update={"wait": Wait.HOLD})
    found = problems(held, on_sagemaker=True)
    assert "its GPU would be billed" in found["wait"]
    assert check_rewards(held, on_sagemaker=False) == []
    assert check_rewards(spec("human"), on_sagemaker=True) == []


def test_the_packaged_head_fits_the_built_in_clip() -> None:
    (layer,) = require_head(AESTHETIC_HEAD, 128)
    assert layer.outputs == 1


def test_a_model_without_a_clip_is_told_what_to_name(scorer: Path, tmp_path: Path) -> None:
    head = write_head(tmp_path / "head.safetensors", 128, 16, 1)
    use = {"name": "aesthetic", "path": str(head)}
    found = problems(spec("jpeg-compressibility", use, base_model=HUB_MODEL))
    assert list(found) == ["rewards[1]"]
    assert "--scorer FOLDER" in found["rewards[1]"]
    assert check_rewards(spec(use, base_model=HUB_MODEL, scorer=scorer), on_sagemaker=False) == []


def test_a_scorer_may_be_there_for_a_reward_alone(scorer: Path) -> None:
    assert spec("prompt-alignment", scorer=scorer, evaluation_prompts=0).scorer == scorer
    with pytest.raises(ValidationError, match="has nothing to measure"):
        spec("jpeg-compressibility", scorer=scorer, evaluation_prompts=0)


HEADS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.exists, "does not exist"),
    "a pickle": (lambda path: path.write_bytes(b"PK\x03\x04" + b"\0" * 100), "safetensors"),
    "another width": (lambda path: write_head(path, 768, 1024, 1), "takes 768 numbers where it is given 128"),
    "a gap": (
        lambda path: save_file(
            {"0.weight": np.ones((8, 128), "float32"), "2.weight": np.ones((1, 4), "float32")}, path
        ),
        "takes 4 numbers where it is given 8",
    ),
    "two numbers": (lambda path: write_head(path, 128, 2), "ends in 2 numbers"),
    "another model": (
        lambda path: save_file({"conv.kernel": np.ones(3, "float32")}, path),
        "no part of a linear head",
    ),
    "a convolution": (lambda path: save_file({"0.weight": np.ones((1, 128, 1), "float32")}, path), "two dimensions"),
    "bias of another": (
        lambda path: save_file({"0.weight": np.ones((1, 128), "float32"), "0.bias": np.ones(2, "float32")}, path),
        r"0.bias of .* is of the shape \[2\]",
    ),
    "bias alone": (lambda path: save_file({"0.bias": np.ones(1, "float32")}, path), "without a weight"),
    "whole numbers": (
        lambda path: save_file({"0.weight": np.ones((1, 128), "int64")}, path),
        "no part of a linear head",
    ),
}


@pytest.mark.parametrize(("write", "told"), HEADS.values(), ids=HEADS)
def test_a_head_that_does_not_fit_is_found_from_its_header(
    write: Callable[[Path], object], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "head.safetensors"
    write(path)
    with pytest.raises(ValueError, match=told):
        require_head(path, 128)
    assert list(problems(spec({"name": "aesthetic", "path": str(path)}))) == ["rewards[0].path"]


def test_an_aesthetic_reward_of_another_clip_needs_a_head(scorer: Path) -> None:
    found = problems(spec("aesthetic", scorer=scorer))
    assert '"path": "head.safetensors"' in found["rewards[0]"]


def test_a_text_model_is_checked(text_model: Path, tmp_path: Path) -> None:
    require_text_model(text_model)
    for name, told in (
        ("model.safetensors", "no weights"),
        ("tokenizer.json", "no tokenizer"),
        ("config.json", "no config.json"),
    ):
        broken = shutil.copytree(text_model, tmp_path / name)
        (broken / name).unlink()
        use = {"name": "prompt-alignment", "url": "https://judge.example.com", "path": str(broken)}
        assert told in problems(spec(use))["rewards[0].path"]
    (text_model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part-2.safetensors"}}')
    with pytest.raises(ValueError, match=r"lists: part-2\.safetensors"):
        require_text_model(text_model)


def test_a_judge_that_sagemaker_cannot_reach_is_refused() -> None:
    here = {"name": "prompt-alignment", "url": "http://localhost:8000"}
    assert check_rewards(spec(here), on_sagemaker=False) == []
    assert "does not reach" in problems(spec(here), on_sagemaker=True)["rewards[0].url"]
    far = spec({"name": "prompt-alignment", "url": "https://x.org"}, compute=Compute(network_isolation=True))
    assert "network_isolation=false" in problems(far, on_sagemaker=True)["rewards[0]"]


def test_a_package_is_looked_for_here_and_has_to_be_in_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 'did you mean "aesthetic"' in problems(spec("aesthetics"))["rewards[0]"]
    info = tmp_path / "shapes-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shapes\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text("[orchestrator.rewards]\nroundness = module_that_is_not_there:judge\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    job = spec("roundness")
    assert check_rewards(job, on_sagemaker=False) == []  # its code is not run here
    (warning,) = check_rewards(job, on_sagemaker=True)
    assert "training image has to hold" in warning.what
    assert [reward.where for reward in planned_rewards(job)] == ["in the job, by the package shapes 2.1"]


# What goes to the job.


def planned(job: JobSpec, settings: Settings) -> Plan:
    return plan_here(job, settings, PreparedInputs())


def test_weights_go_along_and_their_place_does_not(settings: Settings, tmp_path: Path, text_model: Path) -> None:
    head = write_head(tmp_path / "mine.safetensors", 128, 1)
    judge = {"name": "prompt-alignment", "url": "https://x.org", "path": str(text_model), "required": False}
    job = spec({"name": "aesthetic", "path": str(head), "weight": 2}, evaluated=(judge,))
    plan = planned(job, settings)
    (tree,) = [tree for tree in plan.trees if f"aesthetic/{HEAD_FILE}" in tree.files]
    assert sorted(tree.files) == [
        "aesthetic/head.safetensors",
        "prompt-alignment/config.json",
        "prompt-alignment/model.safetensors",
        "prompt-alignment/tokenizer.json",
    ]
    channels = [channel["ChannelName"] for channel in plan.request["InputDataConfig"]]
    assert REWARDS_CHANNEL in channels
    assert str(tmp_path) not in json.dumps(plan.request["HyperParameters"])
    assert '"./mine.safetensors"' in plan.request["HyperParameters"]["rewards"]
    asked = "prompt-alignment (evaluates only): asked of the server x.org"
    assert reward_facts(plan) == [
        ("reward", f"aesthetic (weight 2): in the job, by the base model's own CLIP, with the weights in {head}"),
        ("evaluation reward", f"{asked}, with the weights in {text_model}; counts as 0 where it fails"),
    ]


def test_the_same_weights_are_the_same_job_wherever_they_lie(settings: Settings, tmp_path: Path) -> None:
    heads = [write_head(tmp_path / place / "head.safetensors", 128, 1) for place in ("one", "two")]
    names = []
    for head in heads:
        names.append(planned(spec({"name": "aesthetic", "path": str(head)}), settings).request["TrainingJobName"])
    assert names[0] == names[1]
    write_head(heads[1], 128, 4, 1)
    other = planned(spec({"name": "aesthetic", "path": str(heads[1])}), settings).request["TrainingJobName"]
    assert other != names[0]
    heavier = planned(spec({"name": "aesthetic", "path": str(heads[0]), "weight": 2}), settings)
    assert heavier.request["TrainingJobName"] != names[0]


def test_a_job_without_weights_has_no_channel_for_them(settings: Settings) -> None:
    plan = planned(spec("jpeg-compressibility"), settings)
    assert REWARDS_CHANNEL not in [channel["ChannelName"] for channel in plan.request["InputDataConfig"]]
