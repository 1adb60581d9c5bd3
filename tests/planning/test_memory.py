"""The estimate against what it claims to estimate: the tensors autograd keeps, counted without computing them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from orchestrator.aws.instances import instance
from orchestrator.contract.evaluation import Evaluation
from orchestrator.contract.families import STABLE_DIFFUSION
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.recipes.controlnet import ControlNet
from orchestrator.contract.recipes.dreambooth import DreamBooth
from orchestrator.contract.recipes.rlhf import Rlhf
from orchestrator.contract.recipes.textual_inversion import TextualInversion
from orchestrator.models import size
from orchestrator.planning.duration import checkpoint_bytes
from orchestrator.planning.memory import GIB, Fit, MemoryEstimate, estimate
from orchestrator.resources import BUILTIN_MODEL

SD15 = size.of_hub("stable-diffusion-v1-5/stable-diffusion-v1-5")
SD15_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
}


SDXL = size.of_hub("stabilityai/stable-diffusion-xl-base-1.0")
SDXL_UNET = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}


COUNTED = (0.8, 1.3)
"""How far what is counted may lie from the estimate of it."""
CONTEXT_GIB = 0.7
"""Of CUDA, on the H200 that the following was measured on."""
HALF = {"mixed_precision": "bf16"}
SAVING = {"gradient_checkpointing": True}


def dreambooth(**fields: Any) -> DreamBooth:
    return DreamBooth(base_model="org/model", instance_prompt="a photo of sks dog", **fields)


def one_image(recipe: type[Recipe], **fields: Any) -> Recipe:
    """Return a recipe that draws one image before training and one after it, as what was measured did."""
    common = {"base_model": "org/model", "evaluation_prompts": 1, "evaluation_seeds": 1}
    return recipe.model_validate({**common, **fields})


SUBJECT = {"instance_prompt": "a photo of sks dog", "prior_preservation": False}
WORD = {"placeholder_token": "<my-dog>", "initializer_token": "dog"}
MEASURED = [  # the most that torch allocated, GiB
    (SD15, one_image(DreamBooth, batch_size=1, **SUBJECT), 5.64),
    (SD15, one_image(DreamBooth, batch_size=1, **SUBJECT, **HALF), 3.49),
    (SD15, one_image(DreamBooth, batch_size=4, **SUBJECT, **HALF), 6.67),
    (SD15, one_image(DreamBooth, batch_size=4, **SUBJECT, **HALF, **SAVING), 3.5),
    (SD15, one_image(DreamBooth, batch_size=1, **{**SUBJECT, "evaluation_prompts": 8}), 8.08),
    (SD15, one_image(DreamBooth, batch_size=1, resolution=1024, **SUBJECT, **HALF, **SAVING), 7.08),
    (SD15, one_image(TextualInversion, batch_size=4, **WORD), 9.92),
    (SD15, one_image(ControlNet, batch_size=1, watched_images=3), 10.03),
    (SD15, one_image(ControlNet, batch_size=4, watched_images=3, **HALF), 11.7),
    (SDXL, one_image(DreamBooth, batch_size=1, resolution=1024, **SUBJECT, **HALF, **SAVING), 11.79),
]


@pytest.mark.parametrize(("known", "recipe", "allocated"), MEASURED)
def test_what_was_measured_on_a_gpu_is_not_more_than_estimated(
    known: ModelSize, recipe: Recipe, allocated: float
) -> None:
    found = estimate(recipe, known)
    assert found is not None
    assert found.low_gib <= allocated + CONTEXT_GIB <= 1.02 * found.gib


def gib(recipe: Recipe) -> float:
    found = estimate(recipe, SD15)
    assert found is not None
    return found.gib


@contextmanager
def normalising_as_on_a_gpu() -> Iterator[None]:
    """Compute normalisations in float32, as CUDA's mixed precision does and that of a CPU does not."""
    import torch
    from torch.nn import functional

    def exact(compute: Callable[..., Any]) -> Callable[..., Any]:
        def computed(*values: Any, **named: Any) -> Any:
            values = tuple(one.float() if isinstance(one, torch.Tensor) else one for one in values)
            with torch.autocast("cpu", enabled=False):
                return compute(*values, **named)

        return computed

    with pytest.MonkeyPatch.context() as patched:
        for name in ("group_norm", "layer_norm"):
            patched.setattr(functional, name, exact(getattr(functional, name)))
        yield


def kept_by_autograd(config: dict[str, Any], side: int, *, frozen: bool, half: bool, control: bool = False) -> int:
    """Return the bytes a U-Net's forward pass keeps for its backward pass; the tensors are fakes without content.

    With `control`, a ControlNet is trained beside the frozen U-Net.
    """
    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel
    from torch._subclasses.fake_tensor import FakeTensorMode

    from entrypoints.models.precision import hold

    with FakeTensorMode(allow_non_fake_inputs=True):
        unet = UNet2DConditionModel(**config).requires_grad_(not frozen)
        network = ControlNetModel.from_unet(unet, load_weights_from_unet=False) if control else None
        if frozen and half:
            hold(unet, torch.bfloat16, torch.device("cpu"))
        own = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
        kept: dict[int, Any] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage()._cdata not in own:
                kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
            return tensor

        noisy = torch.randn(1, unet.config.in_channels, side, side)
        words = torch.randn(1, 77, config["cross_attention_dim"])
        words.requires_grad_(frozen and not control)
        if network is not None:
            own |= {parameter.untyped_storage()._cdata for parameter in network.parameters()}
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=half)
        normalising = normalising_as_on_a_gpu() if half else nullcontext()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast, normalising:
            added = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}
            time = torch.zeros(1, dtype=torch.long)
            residuals: dict[str, Any] = {}
            if network is not None:
                shown = torch.randn(1, 3, 8 * side, 8 * side)
                down, middle = network(noisy, time, words, shown, added_cond_kwargs=added, return_dict=False)
                residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            output = unet(noisy, time, words, added_cond_kwargs=added, return_dict=False, **residuals)
        assert output[0].requires_grad
        return sum(storage.nbytes() for storage in kept.values())


def kept_with_checkpoints(config: dict[str, Any], side: int) -> int:
    """Return the same with gradient checkpointing: what goes into the blocks, the rest, and the largest block."""
    import torch
    from diffusers import UNet2DConditionModel
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        unet = UNet2DConditionModel(**config).requires_grad_(False).train()
        unet.enable_gradient_checkpointing()
        own = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
        outside: dict[int, Any] = {}
        inside = [0]
        kept = outside

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return tensor

        def checkpointed(module: Any, *values: Any) -> Any:
            nonlocal kept
            for value in values:
                if isinstance(value, torch.Tensor):
                    keep(value)
            kept = {}
            output = module(*values)
            inside.append(sum(storage.nbytes() for storage in kept.values()))
            kept = outside
            return output

        for module in unet.modules():
            if hasattr(module, "_gradient_checkpointing_func"):
                module._gradient_checkpointing_func = checkpointed
        words = torch.randn(1, 77, config["cross_attention_dim"]).requires_grad_()
        added = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}
        noisy, time = torch.randn(1, 4, side, side), torch.zeros(1, dtype=torch.long)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            unet(noisy, time, words, added_cond_kwargs=added)
        assert len(inside) > 10  # blocks
        return sum(storage.nbytes() for storage in outside.values()) + max(inside)


@pytest.mark.parametrize(("known", "config"), [(SD15, SD15_UNET), (SDXL, SDXL_UNET)], ids=["SD15", "SDXL"])
def test_activations_with_gradient_checkpointing_are_those_that_are_kept(
    known: ModelSize, config: dict[str, Any]
) -> None:
    recipe = dreambooth(prior_preservation=False, gradient_checkpointing=True, batch_size=1, resolution=512)
    found = estimate(recipe, known)
    assert found is not None
    assert COUNTED[0] < kept_with_checkpoints(config, 64) / GIB / found.parts["activations"] < COUNTED[1]


@pytest.mark.parametrize(("tuner", "precision"), [("full", "no"), ("embedding", "bf16")])
def test_activations_are_those_autograd_keeps(tuner: str, precision: str) -> None:
    kept = kept_by_autograd(SD15_UNET, 64, frozen=tuner == "embedding", half=precision == "bf16")
    recipe: Recipe = dreambooth(tuner="full", prior_preservation=False, mixed_precision=precision)
    if tuner == "embedding":
        fields = {"placeholder_token": "<dog>", "initializer_token": "dog", "mixed_precision": precision}
        recipe = TextualInversion.model_validate({"base_model": "org/model", **fields})
    found = estimate(recipe, SD15)
    assert found is not None
    assert COUNTED[0] < kept / GIB / found.parts["activations"] < COUNTED[1]


def test_the_built_in_model_is_measured_from_its_files() -> None:
    config = {
        key: value
        for key, value in json.loads((BUILTIN_MODEL / "unet" / "config.json").read_text()).items()
        if not key.startswith("_")
    }
    recipe = DreamBooth(instance_prompt="sks dog", tuner="full", prior_preservation=False, batch_size=1, resolution=512)
    found = estimate(recipe, size.of_folder(BUILTIN_MODEL))
    assert found is not None
    kept = kept_by_autograd(config, 512 // 4, frozen=False, half=False)
    assert kept / GIB == pytest.approx(found.parts["activations"], rel=0.1)


def test_parameters_are_counted_as_the_library_counts_them() -> None:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    measured = size.of_folder(BUILTIN_MODEL)
    for part, field, kind in (("unet", "denoiser", UNet2DConditionModel), ("vae", "vae", AutoencoderKL)):
        with torch.device("meta"):
            model = kind.from_config(kind.load_config(BUILTIN_MODEL / part))
        assert getattr(measured, field) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("known", "config"), [(SD15, SD15_UNET), (SDXL, SDXL_UNET)], ids=["SD15", "SDXL"])
def test_a_well_known_model_has_the_figures_its_config_gives(known: ModelSize, config: dict[str, Any]) -> None:
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    assert known.denoiser == sum(parameter.numel() for parameter in unet.parameters())
    shapes = {name: list(parameter.shape) for name, parameter in unet.named_parameters()}
    for targets, layers in STABLE_DIFFUSION.denoiser_targets.items():
        assert known.denoiser_lora[targets] == size.rank_one(shapes, layers)
    assert known.denoiser_layers == size.layers_of(shapes)
    blocks = size.block_channels({**unet.config, "layers_per_block": 2})
    assert blocks == (known.resnet_channels, known.transformer_channels)


@pytest.mark.parametrize(("known", "config"), [(SD15, SD15_UNET), (SDXL, SDXL_UNET)], ids=["SD15", "SDXL"])
def test_a_controlnet_is_counted_as_the_library_counts_it(known: ModelSize, config: dict[str, Any]) -> None:
    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel

    with torch.device("meta"):
        network = ControlNetModel.from_unet(UNet2DConditionModel(**config), load_weights_from_unet=False)
    assert known.control == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("known", "config"), [(SD15, SD15_UNET), (SDXL, SDXL_UNET)], ids=["SD15", "SDXL"])
def test_activations_of_a_controlnet_are_those_autograd_keeps(known: ModelSize, config: dict[str, Any]) -> None:
    kept = kept_by_autograd(config, 64, frozen=True, half=False, control=True)
    found = estimate(ControlNet(base_model="org/model", batch_size=1, resolution=512), known)
    assert found is not None
    assert COUNTED[0] < kept / GIB / found.parts["activations"] < COUNTED[1]
    trained = 4 * known.control / GIB
    assert found.parts["gradients and optimizer"] == pytest.approx(3 * trained, abs=0.01)


def test_activations_of_sdxl_are_those_autograd_keeps() -> None:
    kept = kept_by_autograd(SDXL_UNET, 64, frozen=False, half=False)
    recipe = dreambooth(tuner="full", prior_preservation=False, resolution=512)
    found = estimate(recipe, SDXL)
    assert found is not None
    assert COUNTED[0] < kept / GIB / found.parts["activations"] < COUNTED[1]


def test_sdxl_is_placed_on_a_gpu_that_is_large_enough() -> None:
    found = estimate(dreambooth(resolution=1024, gradient_checkpointing=True), SDXL)
    assert found is not None
    assert found.fit(instance("ml.g4dn.xlarge").gpu) is not Fit.FITS
    assert found.fit(instance("ml.g6e.xlarge").gpu) is Fit.FITS


def test_what_takes_more_memory_is_estimated_to() -> None:
    assert gib(dreambooth()) < gib(dreambooth(batch_size=4)) < gib(dreambooth(batch_size=4, resolution=768))
    assert gib(dreambooth()) < gib(dreambooth(tuner="full")) < gib(dreambooth(tuner="full", train_text_encoder=True))
    assert gib(dreambooth(batch_size=8, mixed_precision="bf16")) < gib(dreambooth(batch_size=8))
    assert gib(dreambooth(batch_size=8, gradient_checkpointing=True)) < gib(dreambooth(batch_size=8))
    assert gib(dreambooth(batch_size=4, prior_preservation=False)) < gib(dreambooth(batch_size=4))


def test_what_is_frozen_is_held_in_half_precision() -> None:
    assert SD15 is not None

    def weights(**fields: Any) -> float:
        found = estimate(dreambooth(**fields), SD15)
        assert found is not None
        return found.parts["weights"]

    half = {"mixed_precision": "bf16"}
    saved = weights() - weights(**half)
    tables = 49_408 * SD15.text_width
    assert saved == pytest.approx(2 * (SD15.denoiser + SD15.text_encoders - tables) / GIB, abs=0.02)
    full = weights(tuner="full") - weights(tuner="full", **half)
    assert full == pytest.approx(2 * (SD15.text_encoders - tables) / GIB, abs=0.02)
    everything = {"tuner": "full", "train_text_encoder": True}
    assert weights(**everything) == weights(**everything, **half)


def test_the_verdict_is_open_where_the_band_crosses_the_memory() -> None:
    gpu = instance("ml.g5.xlarge").gpu  # 22 GiB of it can be used

    def verdict(low: float, high: float) -> Fit:
        return MemoryEstimate(gib=(low + high) / 2, low_gib=low, high_gib=high, parts={}, main_gib=0).fit(gpu)

    assert [verdict(10, 21), verdict(21, 23), verdict(22.1, 40)] == [Fit.FITS, Fit.CANNOT_TELL, Fit.DOES_NOT_FIT]


def test_full_fine_tuning_is_not_promised_to_fit_where_it_is_known_to_be_tight() -> None:
    found = estimate(dreambooth(tuner="full"), SD15)
    assert found is not None
    assert found.fit(instance("ml.g4dn.xlarge").gpu) is not Fit.FITS
    assert found.fit(instance("ml.g6e.xlarge").gpu) is Fit.FITS


def test_nothing_is_said_of_a_model_or_recipe_that_is_not_known() -> None:
    assert size.of_hub("somebody/their-own-model") is None
    assert estimate(dreambooth(), None) is None
    assert estimate(Recipe(), SD15) is None


def test_a_folder_that_is_no_model_cannot_be_measured(tmp_path: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text((BUILTIN_MODEL / part / "config.json").read_text())
    for content in (b"", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0not json", b'\x0e\0\0\0\0\0\0\0{"a":{"b":1}}  '):
        (tmp_path / "unet" / "weights.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be measured"):
            size.of_folder(tmp_path)


def test_main_memory_holds_the_model_once_for_each_gpu_and_nothing_of_what_is_trained() -> None:
    assert SDXL is not None
    adapter = estimate(dreambooth(gradient_checkpointing=True), SDXL)
    full = estimate(dreambooth(tuner="full", train_text_encoder=True), SDXL)
    assert adapter is not None
    assert full is not None
    weights = 4 * (SDXL.denoiser + SDXL.vae + SDXL.text_encoders) / GIB
    assert adapter.main_gib == full.main_gib == pytest.approx(weights + 4, abs=0.01)
    assert not adapter.fits_main(instance("ml.g5.xlarge"))  # 16 GiB
    assert adapter.fits_main(instance("ml.g5.2xlarge"))  # 32 GiB
    assert adapter.fits_main(instance("ml.g5.12xlarge"))  # 192 GiB for four
    crowded = adapter.model_copy(update={"main_gib": 50.0})
    assert not crowded.fits_main(instance("ml.g5.12xlarge"))


def test_a_scorer_is_held_in_main_memory_and_takes_its_turn_on_the_gpu() -> None:
    without, small, large = (estimate(dreambooth(), SD15, scorer) for scorer in (0, 1_000_000, 2_540_000_000))
    assert without is not None
    assert small is not None
    assert large is not None
    assert small.gib == without.gib  # training and drawing take more
    scorer = 4 * 2_540_000_000 / GIB
    assert large.gib == pytest.approx(without.parts["weights"] + scorer + without.parts["overhead"], abs=0.05)
    assert large.main_gib == pytest.approx(without.main_gib + scorer, abs=0.02)


def test_a_clip_that_scores_every_round_stays_on_the_gpu() -> None:
    clip = 427_616_513
    gib = {}
    for reward in ("aesthetic", "jpeg-compressibility"):
        found = estimate(Rlhf(rewards=(reward,), evaluation_prompts=0), SD15, clip)
        assert found is not None
        gib[reward] = found.gib
    assert gib["aesthetic"] - gib["jpeg-compressibility"] == pytest.approx(4 * clip / GIB, abs=0.02)


def test_the_estimate_holds_all_that_is_on_the_gpu_when_the_images_before_are_drawn() -> None:
    assert SDXL is not None
    model = 4 * (SDXL.denoiser + SDXL.vae + SDXL.text_encoders + SDXL.clip) / GIB
    saving = {"resolution": 1024, "gradient_checkpointing": True}
    for prompts, tuner, copies in ((8, "lora", 0), (8, "full", 1), (0, "full", 0)):
        found = estimate(dreambooth(tuner=tuner, evaluation_prompts=prompts, **saving), SDXL)
        assert found is not None
        assert found.parts["second copy"] == pytest.approx(copies * model, abs=0.01)
        assert found.gib >= found.parts["weights"] + copies * model + found.parts["drawing"]
    # A model of which little is trained beside what has to be held twice.
    lopsided = SDXL.model_copy(update={"text_encoders": 30 * SDXL.denoiser})
    found = estimate(dreambooth(tuner="full", **saving), lopsided)
    assert found is not None
    twice = 2 * found.parts["weights"] + found.parts["drawing"] + found.parts["overhead"]
    assert found.gib == pytest.approx(twice, abs=0.05)


def test_what_is_drawn_during_training_is_drawn_beside_the_optimizers_state() -> None:
    silent = dreambooth(tuner="full", resolution=1024, gradient_checkpointing=True, mixed_precision="no")
    watched = silent.model_copy(update={"validation_prompts": ("a photo of sks dog",)})
    before, found = estimate(silent, SD15), estimate(watched, SD15)
    assert before is not None
    assert found is not None
    held = ("weights", "gradients and optimizer", "overhead")
    most = max(found.parts["activations"], found.parts["drawing"])
    assert found.gib == pytest.approx(sum(found.parts[name] for name in held) + most, abs=0.05)
    assert found.gib >= before.gib


def test_an_optimizer_that_keeps_more_takes_more_memory_and_larger_checkpoints() -> None:
    sizes = []
    for settings in ({"optimizer": "adafactor"}, {}, {"ema_decay": 0.99}, {"optimizer": "prodigy"}):
        recipe = dreambooth(tuner="full", **settings)
        sizes.append((gib(recipe), checkpoint_bytes(recipe, SD15)))
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4


def test_an_evaluation_holds_the_controlnet_that_it_measures() -> None:
    plain = estimate(Evaluation(adapter="a"), SD15)
    controlled = estimate(Evaluation(adapter="a", conditions=("canny",)), SD15)
    assert plain is not None
    assert controlled is not None
    more = controlled.parts["weights"] - plain.parts["weights"]
    assert more == pytest.approx(4 * SD15.control / GIB, abs=0.01)
    assert more > 0
