"""Expected durations: the operations they are counted from, and what a plan makes of them."""

import json
from typing import Any

import pytest

from orchestrator.aws.instances import instance, instances
from orchestrator.aws.rates import rate
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.recipes.dreambooth import DreamBooth
from orchestrator.contract.recipes.textual_inversion import TextualInversion
from orchestrator.models import size
from orchestrator.planning.duration import (
    DrawnBatch,
    Duration,
    MeasuredRun,
    default_limit,
    here,
    on_gpu,
    upload_seconds,
    work_of,
)
from orchestrator.planning.placement import find_placement, stand_ins
from orchestrator.resources import BUILTIN_MODEL, SAMPLE_IMAGES
from orchestrator.specs.building import build_spec
from tests.planning.test_memory import SD15, SD15_UNET, SDXL, SDXL_UNET

HOME = "us-east-1"
SD15_ID = "stable-diffusion-v1-5/stable-diffusion-v1-5"
T4, A10G = instance("ml.g4dn.xlarge").gpu, instance("ml.g5.xlarge").gpu
TINY = size.of_folder(BUILTIN_MODEL)


def dreambooth(**fields: Any) -> DreamBooth:
    return DreamBooth.model_validate({"base_model": SD15_ID, "instance_prompt": "a photo of sks dog", **fields})


def counted(config: dict[str, Any], side: int, tokens: int) -> int:
    """Return the operations that torch counts in a forward pass; the tensors have no content."""
    import torch
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
        words = torch.randn(1, tokens, config["cross_attention_dim"])
        added = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}
        with FlopCounterMode(display=False) as counter:
            unet(torch.randn(1, unet.config.in_channels, side, side), torch.zeros(1), words, added_cond_kwargs=added)
    return int(counter.get_total_flops())


def builtin_config() -> dict[str, Any]:
    config = json.loads((BUILTIN_MODEL / "unet" / "config.json").read_text())
    return {key: value for key, value in config.items() if not key.startswith("_")}


@pytest.mark.parametrize(
    ("config", "measured", "resolution", "tokens"),
    [(SD15_UNET, SD15, 512, 77), (SD15_UNET, SD15, 768, 77), (SDXL_UNET, SDXL, 1024, 77), (None, TINY, 64, 32)],
    ids=["SD15", "SD15 at 768", "SDXL", "built-in"],
)
def test_a_forward_pass_has_the_operations_that_torch_counts(
    config: dict[str, Any] | None, measured: ModelSize, resolution: int, tokens: int
) -> None:
    side = resolution // measured.scale
    recipe = dreambooth(resolution=resolution, prior_preservation=False, tuner="full", batch_size=1)
    work = work_of(recipe, measured)
    assert work is not None
    assert work.step / 3 == pytest.approx(counted(config or builtin_config(), side, tokens), rel=0.05)


@pytest.mark.parametrize(("known", "config"), [(SD15, SD15_UNET), (SDXL, SDXL_UNET)], ids=["SD15", "SDXL"])
def test_a_well_known_model_has_the_multiply_adds_its_weights_give(known: ModelSize, config: dict[str, Any]) -> None:
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    shapes = {name: list(parameter.shape) for name, parameter in unet.named_parameters()}
    levels = len(config["block_out_channels"])
    assert size.macs_per_pixel(shapes, levels) == known.denoiser_macs
    assert size.attention_channels(shapes, levels) == known.attention_channels


def operations(**fields: Any) -> float:
    work = work_of(dreambooth(prior_preservation=False, **fields), SD15)
    assert work is not None
    return work.step


def test_what_a_step_does_more_of_counts() -> None:
    assert operations(batch_size=3) == operations(gradient_accumulation=3) == 3 * operations()
    assert operations(tuner="full") == operations(gradient_checkpointing=True) == 1.5 * operations()
    assert work_of(dreambooth(batch_size=1), SD15).step == 2 * operations()  # type: ignore[union-attr]
    drawn = dreambooth(validation_prompts=("a dog", "a cat"), steps=400)
    assert drawn.images_drawn == 100 + 2 * 8 * 4 + 5 * 2


HALF = {"mixed_precision": "bf16"}
SAVING = {"mixed_precision": "bf16", "gradient_checkpointing": True}


@pytest.mark.parametrize(
    ("known", "fields", "measured"),
    [
        (SD15, {"batch_size": 1}, (0.132,)),
        (SD15, {"batch_size": 4, **HALF}, (0.158,)),
        (SD15, {"batch_size": 4, **SAVING}, (0.288,)),
        (SDXL, {"batch_size": 1, "resolution": 1024, **SAVING}, (0.98, 1.35, 1.6)),
    ],
)
def test_steps_that_were_measured_on_a_gpu_lie_in_the_band(
    known: ModelSize, fields: dict[str, Any], measured: tuple[float, ...]
) -> None:
    gpu = next(one.gpu for one in instances().values() if one.gpu.name == "H200")
    few, many = (on_gpu(dreambooth(prior_preservation=False, steps=steps, **fields), known, gpu) for steps in (1, 1001))
    assert few is not None
    assert many is not None
    low = (many.low_seconds - few.low_seconds) / 1000
    high = (many.high_seconds - few.high_seconds) / 1000
    for seconds in measured:
        assert low < seconds < high


def test_every_gpu_with_a_price_has_a_rate() -> None:
    unknown = [one.name for one in instances().values() if rate(one.gpu.name) is None]
    assert [name for name in unknown if instances()[name].usd_per_hour is not None] == []


def test_a_plan_has_a_likely_cost_below_its_worst_case() -> None:
    for model in ("builtin", SD15_ID, "stabilityai/stable-diffusion-xl-base-1.0"):
        fields = {"recipe": "dreambooth", "images": SAMPLE_IMAGES, "prompt": "a photo of sks dog"}
        spec = build_spec({**fields, "base_model": model})
        first = find_placement(spec, HOME)
        for placed in (first, *stand_ins(spec, first)):
            assert placed.expected is not None
            assert placed.likely_usd is not None
            low, high = placed.likely_usd
            assert 0 < low < high < placed.cost.usd
            assert placed.cost.runtime_seconds >= 3 * placed.expected.high_seconds


def test_a_job_of_a_minute_is_not_limited_to_four_hours() -> None:
    spec = build_spec({"recipe": "dreambooth"})
    assert find_placement(spec, HOME).cost.runtime_seconds == 30 * 60


def test_the_default_limit_is_three_times_the_high_end_and_leaves_time_for_checkpoints() -> None:
    often = dreambooth(checkpoint_minutes=1)
    found = on_gpu(often, SD15, A10G)
    assert found is not None
    for high, limit in ((3600, 3 * 3600), (36_000, 30 * 3600), (60, 30 * 60)):
        assert default_limit(often, found.model_copy(update={"high_seconds": high})) == limit
    patient = dreambooth(checkpoint_minutes=50)
    expected = on_gpu(patient, TINY, A10G)
    assert 2 * 50 * 60 <= default_limit(patient, expected) <= 2 * 60 * 60
    assert default_limit(patient, None) == 240 * 60
    careless = dreambooth(checkpoint_minutes=5000)
    assert default_limit(careless, on_gpu(careless, TINY, A10G)) == 240 * 60
    endless = dreambooth(steps=1_000_000)
    assert default_limit(endless, on_gpu(endless, SD15, T4)) == 28 * 24 * 3600


def test_neither_budget_nor_spot_nor_a_long_wait_changes_the_default_limit() -> None:
    limits = set()
    long_wait = {"spot": True, "max_wait_minutes": 24 * 60}
    for fields in ({}, {"budget": {"max_usd": 1000}}, {"compute": {"spot": True}}, {"compute": long_wait}):
        spec = build_spec({"recipe": "dreambooth", **fields})
        limits.add(find_placement(spec, HOME).cost.runtime_seconds)
    assert len(limits) == 1
    short_wait = build_spec({"recipe": "dreambooth", "compute": {"spot": True, "max_wait_minutes": 20}})
    assert find_placement(short_wait, HOME).cost.runtime_seconds == 20 * 60


def test_a_limit_that_may_end_a_job_early_is_warned_of() -> None:
    fields = {"recipe": "dreambooth", "images": SAMPLE_IMAGES, "prompt": "a photo of sks dog", "base_model": SD15_ID}
    short = build_spec({**fields, "compute": {"max_runtime_minutes": 10}})
    assert "is expected to stop" in find_placement(short, HOME).warnings[0].what
    poor = build_spec({**fields, "budget": {"max_usd": 0.6}})
    assert "may stop" in find_placement(poor, HOME).warnings[0].what
    assert find_placement(build_spec(fields), HOME).warnings == ()


def test_half_precision_and_better_gpus_are_quicker() -> None:
    def seconds(gpu: Any, **fields: Any) -> int:
        found = on_gpu(dreambooth(**fields), SD15, gpu)
        assert found is not None
        assert found.low_seconds < found.high_seconds
        return found.high_seconds

    assert seconds(T4, mixed_precision="fp16") < seconds(T4)
    assert seconds(A10G) < seconds(T4)


def test_what_is_not_known_is_not_estimated() -> None:
    unknown = T4.model_copy(update={"name": "T5"})
    assert on_gpu(dreambooth(), None, T4) is None
    assert on_gpu(dreambooth(), SD15, unknown) is None
    assert here(dreambooth(), SD15_ID, SD15, []) is None
    assert upload_seconds(dreambooth(), None) > upload_seconds(dreambooth(), SD15)


def test_a_full_model_takes_longer_to_upload_than_an_adapter() -> None:
    assert upload_seconds(dreambooth(), SD15) < 90
    assert upload_seconds(dreambooth(tuner="full"), SD15) > 240  # 14 GB with its last checkpoint


BATCH = DrawnBatch(images=1, seconds=1.0)  # as many as are drawn at once on a CPU at 512 pixels


def run(recipe: Recipe, measured: ModelSize | None = SD15, *, batch: DrawnBatch | None = BATCH) -> MeasuredRun:
    return MeasuredRun("earlier", recipe.base_model, measured, recipe, 2.0, start_seconds=15, batch=batch)


def expected(recipe: Recipe, *runs: MeasuredRun, measured: ModelSize | None = SD15) -> Duration:
    found = here(recipe, SD15_ID, measured, runs)
    assert found is not None
    return found


def test_the_same_steps_are_expected_to_take_what_they_took() -> None:
    earlier = run(dreambooth(steps=300))
    again = expected(dreambooth(steps=300, learning_rate=1e-5, seed=3), earlier)
    whole = 15 + 300 * 2 + 164  # start, steps, images
    assert (again.low_seconds, again.high_seconds) == pytest.approx((0.8 * whole, 1.4 * whole), abs=1)
    assert "measured here: 2 s a step in earlier" in again.describe()
    assert expected(dreambooth(steps=300), earlier._replace(size=None), measured=None) == again


def test_images_take_the_time_that_images_took() -> None:
    without = expected(dreambooth(evaluation_prompts=0), run(dreambooth()))
    assert without.high_seconds == pytest.approx(1.4 * (15 + 1000 + 100), abs=1)
    quick = run(dreambooth(inference_steps=2))
    usual = expected(dreambooth(inference_steps=25), quick)
    # An image of 25 denoising steps takes less than 12.5 times as long as one of 2: the rest of it takes what it took.
    assert usual.high_seconds < 1.4 * (15 + 1000 + 164 * 8)


def test_a_slow_start_is_no_time_of_images() -> None:
    usual = run(dreambooth(inference_steps=2))
    slow = usual._replace(start_seconds=60)
    later = expected(dreambooth(), slow).high_seconds - expected(dreambooth(), usual).high_seconds
    assert later == pytest.approx(1.4 * 45, abs=1)


def test_images_drawn_one_by_one_tell_less_of_those_drawn_together() -> None:
    few = dreambooth(resolution=64, evaluation_prompts=1, evaluation_seeds=1, prior_preservation=False)
    many = few.model_copy(update={"evaluation_prompts": 8, "evaluation_seeds": 4})
    found = expected(many, run(few))
    steps = 15 + 1000
    # 64 images in two batches of 32, each of which takes between one and 32 times as long as one image.
    assert (found.low_seconds, found.high_seconds) == pytest.approx((0.8 * (steps + 2), 1.4 * (steps + 64)), abs=1)
    assert "which drew 1 image at a time" in found.basis


def test_steps_of_another_batch_size_take_between_as_long_and_in_proportion() -> None:
    single = run(dreambooth(batch_size=1, evaluation_prompts=0, prior_preservation=False))
    wide = expected(dreambooth(batch_size=4, evaluation_prompts=0, prior_preservation=False), single)
    assert wide.low_seconds < 15 + 1000
    assert wide.high_seconds > 15 + 4 * 1000
    narrow = expected(dreambooth(evaluation_prompts=0, prior_preservation=False), run(dreambooth(batch_size=4)))
    assert narrow.low_seconds < 15 + 1000 / 8
    assert narrow.high_seconds > 15 + 1000


@pytest.mark.parametrize(("measured", "planned"), [("fp16", "no"), ("no", "fp16"), ("bf16", "fp16")])
def test_another_precision_tells_little_of_the_steps(measured: str, planned: str) -> None:
    found = expected(dreambooth(mixed_precision=planned), run(dreambooth(mixed_precision=measured)))
    assert "in another precision" in found.basis
    assert found.low_seconds < 15 + 1000 / 4 + 164
    assert found.high_seconds > 4 * 1000
    known = run(dreambooth(mixed_precision=planned, batch_size=2))._replace(job="older")
    assert (
        "older" in expected(dreambooth(mixed_precision=planned), run(dreambooth(mixed_precision=measured)), known).basis
    )


def test_other_processors_tell_little() -> None:
    elsewhere = run(dreambooth())._replace(same_processors=False)
    found = expected(dreambooth(), elsewhere)
    assert "with other processors" in found.basis
    assert found.low_seconds < 0.3 * 1179
    assert found.high_seconds > 4 * 1179
    older = run(dreambooth(batch_size=2))._replace(job="older")
    assert "older" in expected(dreambooth(), elsewhere, older).basis


def test_of_a_run_that_drew_nothing_the_steps_count_and_the_images_are_computed() -> None:
    running = run(dreambooth(), batch=None)
    found = expected(dreambooth(), running)
    work = work_of(dreambooth(), SD15)
    assert work is not None
    images = 164 * work.image / (work.step / 2)
    assert found.high_seconds == pytest.approx(1.4 * (15 + 1000) + 2 * images, abs=1)
    finished = run(dreambooth())._replace(job="finished")
    assert "finished" in expected(dreambooth(), running, finished).basis
    unknown = expected(dreambooth(), running._replace(size=None), measured=None)
    assert "without class images and evaluation" in unknown.basis


def test_another_job_tells_the_rate_of_the_machine_and_another_model_tells_less() -> None:
    lora = run(dreambooth())
    another = SD15.model_copy(update={"vae": SD15.vae + 1})
    full = expected(dreambooth(tuner="full"), lora)
    other = expected(dreambooth(tuner="full"), lora._replace(base_model="another/model", size=another))
    assert other.low_seconds < full.low_seconds < full.high_seconds < other.high_seconds
    moved = lora._replace(base_model="file:///the/same/model")
    assert expected(dreambooth(tuner="full"), moved) == full


def test_a_run_of_the_same_recipe_tells_more_than_one_of_another() -> None:
    words = TextualInversion(base_model=SD15_ID, placeholder_token="<me>", initializer_token="monster")
    older = run(dreambooth(batch_size=2))._replace(job="older")
    assert "older" in expected(dreambooth(), run(words), older).basis


def test_a_first_run_of_the_built_in_model_has_a_rough_figure() -> None:
    recipe = TextualInversion(placeholder_token="<me>", initializer_token="monster")
    found = here(recipe, BUILTIN_MODEL.as_uri(), TINY, [])
    assert found is not None
    assert "nothing was measured on this machine yet" in found.describe()
    assert found.high_seconds < 600


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (32, 32, "about 32 seconds"),
        (1, 1, "about 1 second"),
        (3, 57, "3 to 57 seconds"),
        (110, 119, "1 to 2 minutes"),
        (180, 480, "3 to 8 minutes"),
        (3600, 4 * 3600, "1 to 4 hours"),
        (3600, 30 * 3600, "1 to 30 hours"),
        (24 * 3600, 40 * 24 * 3600, "1 to 40 days"),
        (40 * 24 * 3600, 41 * 24 * 3600, "about 41 days"),
        (400 * 24 * 3600, 10**12, "more than a year"),
    ],
)
def test_a_duration_is_said_in_a_unit_that_a_person_can_picture(low: int, high: int, text: str) -> None:
    assert Duration(low_seconds=low, high_seconds=high, basis="b").describe() == f"{text} (b)"
