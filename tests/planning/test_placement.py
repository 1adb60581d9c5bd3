import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.aws.instances import instance
from orchestrator.errors import SpecError
from orchestrator.planning.memory import Fit
from orchestrator.planning.placement import find_placement, stand_ins
from orchestrator.resources import BUILTIN_MODEL, SAMPLE_IMAGES
from orchestrator.specs.building import build_spec
from orchestrator.specs.job import JobSpec
from tests.stand_ins.model import json_of, small_model, write_files

HOME = "us-east-1"
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def spec(base_model: str = SD15, **fields: Any) -> JobSpec:
    prompt = "a photo of sks dog"
    return build_spec(
        {"recipe": "dreambooth", "images": SAMPLE_IMAGES, "prompt": prompt, "base_model": base_model, **fields}
    )


def refused(job: JobSpec) -> dict[str, str]:
    with pytest.raises(SpecError) as raised:
        find_placement(job, HOME)
    assert raised.value.next_step
    return {problem.where: problem.render() for problem in raised.value.problems}


def test_the_cheapest_instance_that_is_sure_to_be_enough_is_chosen() -> None:
    small, large = find_placement(spec(), HOME), find_placement(spec(settings={"tuner": "full"}), HOME)
    assert (small.instance.name, large.instance.name) == ("ml.g4dn.xlarge", "ml.g6e.xlarge")
    assert small.fit is large.fit is Fit.FITS
    assert small.memory is not None
    assert f"({small.memory.low_gib:.1f} to {small.memory.high_gib:.1f})" in small.why
    assert small.warnings == ()


def test_bf16_is_not_sent_to_a_gpu_without_it() -> None:
    assert find_placement(spec(settings={"mixed_precision": "bf16"}), HOME).instance.gpu.bf16
    forced = find_placement(
        spec(settings={"mixed_precision": "bf16"}, compute={"instance_type": "ml.g4dn.xlarge"}), HOME
    )
    assert [warning.where for warning in forced.warnings] == ["mixed_precision"]


def test_an_instance_that_was_asked_for_is_kept_and_doubted() -> None:
    job = spec(settings={"tuner": "full"}, compute={"instance_type": "ml.g4dn.xlarge"})
    placed = find_placement(job, HOME)
    assert placed.instance.name == "ml.g4dn.xlarge"
    assert "may be too small" in placed.warnings[0].what
    crowded = spec(settings={"tuner": "full", "batch_size": 16}, compute={"instance_type": "ml.g4dn.xlarge"})
    assert "is too small" in find_placement(crowded, HOME).warnings[0].what


def test_a_model_of_unknown_size_gets_room_and_a_warning() -> None:
    placed = find_placement(spec("somebody/their-own-model"), HOME)
    assert placed.memory is None
    assert placed.fit is Fit.CANNOT_TELL
    assert placed.instance.gpu.usable_gib >= 20
    assert "cannot be estimated" in placed.warnings[0].what


def test_a_job_larger_than_every_gpu_is_refused_with_what_to_lower() -> None:
    found = refused(spec(settings={"resolution": 2048, "batch_size": 16, "tuner": "full"}))
    assert "batch_size" in found["compute.instance_type"]


def test_the_budget_sets_the_limit_of_the_run() -> None:
    rich, poor = find_placement(spec(), HOME), find_placement(spec(budget={"max_usd": 1}), HOME)
    assert 60 * 60 < poor.cost.runtime_seconds < rich.cost.runtime_seconds
    assert poor.cost.usd <= 1 < rich.cost.usd
    assert find_placement(spec(budget={"max_usd": 1000}), HOME).cost == rich.cost


def test_a_budget_that_trains_nothing_is_refused() -> None:
    assert "allow at least" in refused(spec(budget={"max_usd": 0.02}))["budget.max_usd"]


def test_a_budget_that_ends_a_spot_job_before_its_first_checkpoint_is_refused() -> None:
    job = spec(compute={"spot": True}, budget={"max_usd": 0.2}, settings={"checkpoint_minutes": 30})
    assert "checkpoint" in refused(job)["budget.max_usd"]


def test_the_quota_has_the_name_that_the_console_gives_it() -> None:
    assert find_placement(spec(), HOME).quota == "ml.g4dn.xlarge for training job usage"
    assert find_placement(spec(compute={"spot": True}), HOME).quota == "ml.g4dn.xlarge for spot training job usage"


def test_several_gpus_are_warned_to_multiply_the_batch() -> None:
    settings = {"batch_size": 2, "gradient_accumulation": 3}
    compute = {"instance_type": "ml.g5.12xlarge", "instance_count": 2}  # of four GPUs each
    (warning,) = find_placement(spec(settings=settings, compute=compute), HOME).warnings
    assert warning.where == "batch_size"
    assert "48 samples (8 GPUs x batch_size 2 x gradient_accumulation 3)" in warning.what
    assert "learning_rate is not scaled" in warning.what


@pytest.mark.parametrize(("instance_type", "instances"), [("ml.g5.xlarge", 2), ("ml.g5.12xlarge", 1)])
def test_instances_and_gpus_are_both_counted(instance_type: str, instances: int) -> None:
    compute = {"instance_type": instance_type, "instance_count": instances}
    (warning,) = find_placement(spec(compute=compute), HOME).warnings
    assert warning.where == "batch_size"


def test_what_stands_in_is_priced_anew_and_within_the_budget() -> None:
    unlimited = stand_ins(spec(), find_placement(spec(), HOME))
    hourly = [one.cost.usd_per_hour for one in unlimited]
    assert hourly == sorted(hourly)
    assert hourly[0] > find_placement(spec(), HOME).cost.usd_per_hour
    assert all("ml.g4dn.xlarge" in one.why and one.fit is Fit.FITS for one in unlimited)
    poor = spec(budget={"max_usd": 0.2})
    limited = stand_ins(poor, find_placement(poor, HOME))
    assert 0 < len(limited) < len(unlimited)
    assert all(float(one.cost.usd) <= 0.2 for one in limited)


def test_a_folder_whose_configuration_leaves_out_what_memory_depends_on_has_no_known_size(tmp_path: Path) -> None:
    files = small_model()
    config = {
        name: value for name, value in json.loads(files["unet/config.json"]).items() if name != "layers_per_block"
    }
    write_files(tmp_path, {**files, "unet/config.json": json_of(config)})
    assert find_placement(spec(str(tmp_path)), HOME).memory is None


def test_sdxl_gets_its_own_resolution_and_an_instance_that_is_large_enough() -> None:
    job = spec("stabilityai/stable-diffusion-xl-base-1.0")
    assert job.recipe.resolution == 1024
    assert job.recipe.model_dump()["gradient_checkpointing"] is True
    placed = find_placement(job, HOME)
    assert placed.fit is Fit.FITS
    assert placed.instance.gpu.memory_gib >= 40
    assert placed.warnings == ()


@pytest.mark.parametrize(
    ("chosen", "advised"),
    [
        ({}, {"batch_size", "gradient_checkpointing", "mixed_precision", "resolution"}),
        ({"batch_size": 1}, {"gradient_checkpointing", "mixed_precision", "resolution"}),
        ({"gradient_checkpointing": True, "mixed_precision": "fp16"}, {"batch_size", "resolution"}),
        ({"batch_size": 1, "gradient_checkpointing": True, "mixed_precision": "fp16"}, {"resolution"}),
    ],
)
def test_memory_is_saved_by_what_is_not_set_already(chosen: dict[str, Any], advised: set[str]) -> None:
    settings = {"batch_size": 64, "resolution": 2048, "gradient_checkpointing": False, "tuner": "full", **chosen}
    model = "stabilityai/stable-diffusion-xl-base-1.0"
    asked = spec(model, settings=settings, compute={"instance_type": "ml.g4dn.xlarge"})
    fixes = [one.fix for one in find_placement(asked, HOME).warnings if "is too small" in one.what]
    if "batch_size" in advised:  # beyond any GPU, so it is refused where none is named
        with pytest.raises(SpecError) as raised:
            find_placement(spec(model, settings=settings), HOME)
        fixes += [problem.fix for problem in raised.value.problems]
    assert fixes
    ways = {"batch_size", "gradient_checkpointing", "mixed_precision", "resolution"}
    for fix in fixes:
        assert {way for way in ways if way in fix} == advised


@pytest.mark.parametrize(("batch_size", "can_be_lowered"), [(1, False), (2, True)])
def test_a_batch_of_one_is_not_to_be_lowered(batch_size: int, can_be_lowered: bool) -> None:
    job = spec(settings={"batch_size": batch_size}, compute={"instance_type": "ml.g5.12xlarge"})
    (fix,) = [one.fix for one in find_placement(job, HOME).warnings if one.where == "batch_size"]
    assert "learning_rate" in fix
    assert ("lower batch_size" in fix) == can_be_lowered


def test_a_type_without_a_known_price_runs_a_job_that_names_it_and_is_never_chosen() -> None:
    placed = find_placement(spec(compute={"instance_type": "ml.g7.2xlarge"}), HOME)
    assert placed.cost.usd is None
    (warning,) = placed.warnings
    assert "no price of ml.g7.2xlarge is known" in warning.what
    assert all(one.instance.usd_per_hour for one in stand_ins(spec(), placed))
    large = spec("org/unknown-model")
    assert find_placement(large, HOME).instance.usd_per_hour


def test_a_budget_needs_a_price_to_become_a_time_limit() -> None:
    problems = refused(spec(compute={"instance_type": "ml.p5en.48xlarge"}, budget={"max_usd": 100}))
    assert "no price of ml.p5en.48xlarge is known" in problems["budget.max_usd"]


def test_a_built_in_disk_that_is_too_small_is_refused_with_a_type_that_has_more() -> None:
    named = {"instance_type": "ml.g4dn.xlarge", "volume_gb": 300}
    (problem,) = refused(spec(compute=named)).values()
    assert "300 GB is more than the built-in disk of ml.g4dn.xlarge: 125 GB" in problem
    assert "use ml.g6.2xlarge (450 GB)" in problem


def test_a_job_that_needs_much_disk_is_placed_where_there_is_as_much() -> None:
    placed = find_placement(spec(compute={"volume_gb": 300}), HOME)
    for one in (placed, *stand_ins(spec(compute={"volume_gb": 300}), placed)):
        assert (one.instance.disk_gb or 0) >= 300
    (problem,) = refused(spec(compute={"volume_gb": 16_000})).values()
    assert "16000 GB of disk space" in problem


def test_a_job_that_keeps_many_checkpoints_is_placed_where_they_fit() -> None:
    many = {"tuner": "full", "keep_checkpoints": 40}
    job = spec(settings=many)
    placed = find_placement(job, HOME)
    checkpoints = 41 * 12 * 859.5e6 / 1e9  # float32, three times the weights; one more until it is verified
    assert checkpoints < placed.disk_gb < 1.1 * checkpoints
    assert placed.warnings == ()
    for one in (placed, *stand_ins(job, placed)):
        assert (one.instance.disk_gb or 0) >= placed.disk_gb
    named = find_placement(spec(settings=many, compute={"instance_type": "ml.g6e.xlarge"}), HOME)
    (warning,) = named.warnings
    assert f"250 GB, may be too small: the job keeps up to {placed.disk_gb} GB" in warning.what
    assert "use ml.g6e.4xlarge (600 GB), or lower keep_checkpoints" in warning.fix
    assert find_placement(spec(settings={"keep_checkpoints": 40}), HOME).instance.name == "ml.g4dn.xlarge"


def test_a_job_writes_no_more_checkpoints_than_it_has_steps() -> None:
    few = {"tuner": "full", "keep_checkpoints": 5000, "steps": 2}
    assert find_placement(spec(settings=few), HOME).disk_gb == 50


def test_the_disk_holds_the_inputs_and_a_disk_that_no_type_has_is_refused() -> None:
    assert (find_placement(spec(), HOME, input_bytes=300 * 10**9).instance.disk_gb or 0) > 300
    (problem,) = refused(spec(settings={"tuner": "full", "keep_checkpoints": 700, "steps": 9000})).values()
    assert "GB of disk space" in problem
    assert "lower keep_checkpoints" in problem


SMALL_HOST = {"instance_type": "ml.g5.xlarge"}  # 16 GiB of main memory


def test_an_instance_whose_main_memory_is_too_small_is_doubted() -> None:
    job = spec("stabilityai/stable-diffusion-xl-base-1.0", settings={"resolution": 512}, compute=SMALL_HOST)
    warnings = [warning.what for warning in find_placement(job, HOME).warnings]
    assert any("16 GiB of main memory" in warning for warning in warnings)
    roomy = spec(
        "stabilityai/stable-diffusion-xl-base-1.0",
        settings={"resolution": 512},
        compute={"instance_type": "ml.g5.2xlarge"},
    )
    assert not any("main memory" in warning.what for warning in find_placement(roomy, HOME).warnings)


def test_no_instance_is_chosen_or_stands_in_whose_main_memory_is_too_small() -> None:
    settings = {"resolution": 512, "rank": 1, "prior_preservation": False, "evaluation_prompts": 0}
    job = spec("stabilityai/stable-diffusion-xl-base-1.0", settings=settings)
    placed = find_placement(job, HOME)
    assert placed.memory is not None
    assert placed.memory.fit(instance("ml.g5.xlarge").gpu) is Fit.FITS  # its GPU would do
    for one in (placed, *stand_ins(job, placed)):
        assert one.instance.memory_gib > 16


def huge_clip(folder: Path, parameters: int) -> Path:
    """Make a CLIP of that size whose weights take no room on the disk."""
    shutil.copytree(BUILTIN_MODEL / "clip", folder)
    for file in (BUILTIN_MODEL / "tokenizer").iterdir():
        shutil.copyfile(file, folder / file.name)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = content[start:]
    end = len(tensors) + 4 * parameters
    huge = {"dtype": "F32", "shape": [parameters], "data_offsets": [len(tensors), end]}
    header = json.dumps({**json.loads(content[8:start]), "huge": huge}).encode()
    with weights.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header + tensors)
        file.truncate(file.tell() + 4 * parameters)
    return folder


def test_a_large_scorer_leads_to_a_larger_instance(tmp_path: Path) -> None:
    plain = find_placement(spec(), HOME)
    scorer = huge_clip(tmp_path / "clip", 2_540_000_000)  # as CLIP-ViT-bigG
    placed = find_placement(spec(scorer=scorer), HOME)
    assert plain.memory is not None
    assert placed.memory is not None
    assert placed.memory.gib > plain.memory.gib
    assert placed.memory.main_gib > plain.memory.main_gib + 9
    assert placed.memory.fits_main(placed.instance)
    assert not placed.memory.fits_main(plain.instance)
    doubted = find_placement(spec(scorer=scorer, compute=SMALL_HOST), HOME)
    assert any("16 GiB of main memory" in warning.what for warning in doubted.warnings)
