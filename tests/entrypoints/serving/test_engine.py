"""What the server's engine draws: the pictures of plain diffusers, alone and beside other requests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, DiffusionPipeline
from made_adapters import disturb, fresh, write_lora
from PIL import Image, ImageFilter
from torch import Tensor

from entrypoints.adapters.embedding import Embedding
from entrypoints.models.base import BaseModel
from entrypoints.models.control import Control
from entrypoints.serving.engine import Engine
from entrypoints.serving.low_rank_file import read_low_rank
from entrypoints.serving.sample import Begin, Sample, SampleRequest, start
from entrypoints.serving.service import latent_mask
from entrypoints.serving.slots import Slot, SlotNetwork, SlotUse, rank_of
from entrypoints.serving.texts import ServedWord, TextReader, TextRequest
from orchestrator.contract.adapter import LORA_FILE
from orchestrator.contract.buckets import Size
from orchestrator.contract.generation import SCHEDULERS, SchedulerName

PROMPT = "a photo of a toy dog"
STEPS = 3
GUIDANCE = 5.0
SLOTS = 8
CLOSE = 1e-5


class Server:
    """The engine with its text reader, and adapters in their slots."""

    def __init__(self, model: Path) -> None:
        self.base = fresh(model)
        self.denoiser = SlotNetwork(self.base.denoiser)
        self.encoders = {part: SlotNetwork(encoder) for part, encoder in self.base.text_encoders.items()}
        self.engine = Engine(self.base, self.denoiser)
        self.reader = TextReader(self.base, self.encoders)
        self.count = 0

    def load(self, folder: Path) -> Slot:
        weights = read_low_rank(self.base, folder / LORA_FILE)
        ranks = [rank_of(pairs) for pairs in weights.parts.values()]
        slot = Slot(max(ranks), self.count)
        self.count += 1
        for part, network in {self.base.family.denoiser: self.denoiser, **self.encoders}.items():
            network.put(slot, SLOTS, weights.parts.get(part, {}))
        return slot

    def sample(self, prompt: str, seed: int, *uses: SlotUse, steps: int = STEPS, **more: Any) -> Sample:
        words = more.pop("words", ())
        guidance = more.pop("guidance", GUIDANCE)
        scheduler = more.pop("scheduler", None)
        adapters = tuple((str(use.slot), use.weight) for use in uses)
        text = TextRequest(prompt, None, guidance > 1, words, uses, adapters)
        size = more.pop("size", Size(tiny.SIDE, tiny.SIDE))
        request = SampleRequest(self.reader.conditions(text), seed, steps, guidance, size, uses, **more)
        return start(self.base, request, scheduler)

    def draw(self, *samples: Sample) -> list[Tensor]:
        while any(not sample.is_done for sample in samples):
            self.engine.step([sample for sample in samples if not sample.is_done])
        return [pixels(self.base, sample.latents) for sample in samples]


def cloudy(size: Size) -> Image.Image:
    """Return a picture without edges, the same one every time."""
    width, height = size
    generator = torch.Generator().manual_seed(2)
    noise = 128 + 60 * torch.randn(height, width, generator=generator)
    values = noise.clamp(0, 255).to(torch.uint8)
    return Image.fromarray(values.numpy()).convert("RGB").filter(ImageFilter.GaussianBlur(3))


def pixels(base: BaseModel, latents: Tensor) -> Tensor:
    with torch.no_grad():
        decoded = base.pipeline.vae.decode(latents / base.pipeline.vae.config.scaling_factor).sample
    return decoded / 2 + 0.5


def by_diffusers(model: Path, prompt: str, seed: int, prepare: Callable[[Any], None], steps: int = STEPS) -> Tensor:
    """Draw with plain diffusers, by the class that the model's index names."""
    pipeline = DiffusionPipeline.from_pretrained(model)
    prepare(pipeline)
    options = {"height": tiny.SIDE, "width": tiny.SIDE}
    return asked_of(pipeline, prompt=prompt, seed=seed, steps=steps, **options)


def asked_of(pipeline: Any, *, steps: int, prompt: str = PROMPT, seed: int = 3, **more: Any) -> Tensor:
    """Return the pixels that a pipeline draws."""
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        prompt,
        generator=torch.Generator("cpu").manual_seed(seed),
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        output_type="latent",
        **more,
    ).images
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return decoded / 2 + 0.5


def largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize(("text", "targets"), [(False, "attention"), (True, "all")])
def test_an_adapter_draws_the_picture_that_diffusers_draws_with_it(
    family_folder: Path, tmp_path: Path, text: bool, targets: str
) -> None:
    folder = write_lora(tmp_path / "a", family_folder, 1, text=text, targets=targets, rank=3)

    def prepare(pipeline: Any) -> None:
        pipeline.load_lora_weights(str(folder), weight_name=LORA_FILE, adapter_name="a")
        pipeline.set_adapters(["a"], adapter_weights=[0.7])

    expected = by_diffusers(family_folder, PROMPT, 3, prepare)
    server = Server(family_folder)
    (drawn,) = server.draw(server.sample(PROMPT, 3, SlotUse(server.load(folder), 0.7)))
    assert largest(drawn, expected) <= CLOSE
    (plain,) = server.draw(server.sample(PROMPT, 3))
    assert largest(plain, expected) > 100 * CLOSE
    assert largest(plain, by_diffusers(family_folder, PROMPT, 3, lambda _: None)) <= CLOSE


def test_a_learned_word_is_read_as_diffusers_reads_it_and_by_no_other_request(
    family_folder: Path, tmp_path: Path
) -> None:
    tuner = Embedding(fresh(family_folder), placeholder="<toy>", initializer="dog", vectors=2)
    disturb(tuner, 1)
    tuner.save(tmp_path, {"format": "pt"})
    words = {part: embedding.word().detach() for part, embedding in tuner.embeddings.items()}
    prompt = "a photo of <toy>"

    def prepare(pipeline: Any) -> None:
        for part, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
            if part in words:
                pipeline.load_textual_inversion(
                    words[part],
                    token="<toy>",
                    text_encoder=getattr(pipeline, part),
                    tokenizer=getattr(pipeline, tokenizer),
                )

    expected = by_diffusers(family_folder, prompt, 3, prepare)
    server = Server(family_folder)
    (before,) = server.draw(server.sample(prompt, 3))
    (drawn,) = server.draw(server.sample(prompt, 3, words=(ServedWord("<toy>", "1", words),)))
    assert largest(drawn, expected) <= CLOSE
    server.reader._kept.clear()
    (after,) = server.draw(server.sample(prompt, 3))
    assert torch.equal(before, after)
    assert largest(drawn, after) > 100 * CLOSE


def test_a_request_draws_alone_what_it_draws_beside_seven_others(family_folder: Path, tmp_path: Path) -> None:
    server = Server(family_folder)
    slots = []
    for seed, rank in enumerate((2, 3, 12, 4)):
        text = seed % 2 == 0
        targets = "all" if seed > 1 else "attention"
        folder = write_lora(tmp_path / str(seed), family_folder, seed, text=text, targets=targets, rank=rank)
        slots.append(server.load(folder))
    first, second, third, fourth = slots
    asked: list[tuple[tuple[SlotUse, ...], int, float]] = [
        ((SlotUse(first, 1.0),), 3, 5.0),
        ((SlotUse(second, 0.4), SlotUse(third, 1.2)), 4, 7.5),
        ((), 2, 5.0),
        ((SlotUse(third, 1.0),), 3, 1.0),
        ((SlotUse(first, 0.5), SlotUse(second, 0.5)), 3, 2.0),
        ((SlotUse(fourth, 1.0),), 5, 5.0),
        ((SlotUse(fourth, 1.0),), 3, 5.0),
        ((SlotUse(first, -1.0),), 3, 5.0),
    ]

    def samples() -> list[Sample]:
        return [
            server.sample(f"a photo of a toy dog {number}", number, *uses, steps=steps, guidance=guidance)
            for number, (uses, steps, guidance) in enumerate(asked)
        ]

    together = server.draw(*samples())
    for number, sample in enumerate(samples()):
        (alone,) = server.draw(sample)
        assert largest(alone, together[number]) <= CLOSE, number


def test_a_request_that_joins_a_running_batch_draws_what_it_draws_alone(base_folder: Path, tmp_path: Path) -> None:
    server = Server(base_folder)
    slot = server.load(write_lora(tmp_path / "a", base_folder, 1, text=False, targets="all", rank=4))
    early, late = server.sample(PROMPT, 1, SlotUse(slot, 1.0), steps=4), server.sample(PROMPT, 2)
    server.engine.step([early])
    server.engine.step([early])
    joined = server.draw(early, late)
    for expected, sample in zip(
        joined, (server.sample(PROMPT, 1, SlotUse(slot, 1.0), steps=4), server.sample(PROMPT, 2)), strict=True
    ):
        (alone,) = server.draw(sample)
        assert largest(alone, expected) <= CLOSE


def test_the_base_models_weights_stay_as_they_are_to_the_bit(base_folder: Path, tmp_path: Path) -> None:
    server = Server(base_folder)
    untouched = {name: value.clone() for name, value in fresh(base_folder).denoiser.state_dict().items()}
    for seed in range(3):
        slot = server.load(write_lora(tmp_path / str(seed), base_folder, seed, text=True, targets="all", rank=4))
        server.draw(server.sample(PROMPT, seed, SlotUse(slot, 1.0)))
    now = {name.replace(".layer.", "."): value for name, value in server.base.denoiser.state_dict().items()}
    assert set(now) == set(untouched)
    assert all(torch.equal(now[name], value) for name, value in untouched.items())


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_an_image_that_begins_with_a_picture_is_the_one_of_diffusers(family_folder: Path, strength: float) -> None:
    picture = cloudy(Size(tiny.SIDE, tiny.SIDE))
    pipeline = AutoPipelineForImage2Image.from_pretrained(family_folder)
    expected = asked_of(pipeline, steps=4, image=picture, strength=strength)
    server = Server(family_folder)
    (drawn,) = server.draw(server.sample(PROMPT, 3, steps=4, begin=Begin(picture, strength)))
    assert largest(drawn, expected) <= CLOSE


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_masked_image_is_drawn_anew_where_diffusers_draws_it_anew(family_folder: Path, strength: float) -> None:
    picture = cloudy(Size(tiny.SIDE, tiny.SIDE))
    half = Image.new("L", picture.size)
    half.paste(255, (0, 0, tiny.SIDE // 2, tiny.SIDE))
    pipeline = AutoPipelineForInpainting.from_pretrained(family_folder)
    expected = asked_of(pipeline, steps=4, image=picture, mask_image=half, strength=strength)
    server = Server(family_folder)
    mask = latent_mask(half, server.base.pipeline.vae_scale_factor)
    (drawn,) = server.draw(server.sample(PROMPT, 3, steps=4, begin=Begin(picture, strength, mask)))
    assert largest(drawn, expected) <= CLOSE


@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_scheduler_takes_the_steps_that_it_takes_in_diffusers(base_folder: Path, name: SchedulerName) -> None:
    scheduler = getattr(diffusers, SCHEDULERS[name])

    def prepare(pipeline: Any) -> None:
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)

    expected = by_diffusers(base_folder, PROMPT, 3, prepare, steps=6)
    server = Server(base_folder)
    own, other = server.sample(PROMPT, 3, steps=6, scheduler=scheduler), server.sample(PROMPT, 4, steps=5)
    drawn, _ = server.draw(own, other)
    assert largest(drawn, expected) <= CLOSE


def shown(seed: int, width: int = tiny.SIDE, height: int = tiny.SIDE) -> Tensor:
    """Return a condition map of noise."""
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def steered_by_diffusers(model: Path, controls: list[Control], prepare: Callable[[Any], None], **more: Any) -> Tensor:
    """Draw with the ControlNet pipeline of plain diffusers; `image` makes it the one of image to image."""
    plain = DiffusionPipeline.from_pretrained(model)
    prepare(plain)
    of_image = "Img2Img" if "image" in more else ""
    name = type(plain).__name__.replace("Pipeline", f"ControlNet{of_image}Pipeline")
    pipeline = getattr(diffusers, name).from_pipe(plain, controlnet=[one.network for one in controls])
    maps = [one.condition for one in controls]
    height, width = maps[0].shape[-2:]
    return asked_of(
        pipeline,
        steps=4,
        height=height,
        width=width,
        controlnet_conditioning_scale=[one.scale for one in controls],
        control_guidance_start=[one.start for one in controls],
        control_guidance_end=[one.end for one in controls],
        **({**more, "control_image": maps} if of_image else {"image": maps}),
    )


def test_controls_steer_as_in_diffusers_alone_and_beside_other_adapters_and_controls(
    family_folder: Path, tmp_path: Path
) -> None:
    folder = write_lora(tmp_path / "a", family_folder, 1, text=False, targets="all", rank=3)

    def prepare(pipeline: Any) -> None:
        pipeline.load_lora_weights(str(folder), weight_name=LORA_FILE, adapter_name="a")

    server = Server(family_folder)
    adapter = SlotUse(server.load(folder), 1.0)
    first, second = (tiny.control_network(fresh(family_folder), seed) for seed in (0, 1))
    for network in (first, second):
        for weight in network.parameters():
            weight.data *= 0.5  # stronger ones amplify the rounding of another order of sums
    picture = cloudy(Size(tiny.SIDE, tiny.SIDE))
    one = [Control(first, shown(0), 0.7)]
    two = [Control(first, shown(1), 1.0, 0.0, 0.5), Control(second, shown(2), 0.8, 0.25, 1.0)]
    expected = [
        steered_by_diffusers(family_folder, one, prepare),
        steered_by_diffusers(family_folder, two, lambda _: None),
        steered_by_diffusers(family_folder, one, lambda _: None, image=picture, strength=0.6),
        by_diffusers(family_folder, PROMPT, 3, lambda _: None, steps=4),
    ]
    asked: list[tuple[tuple[SlotUse, ...], dict[str, Any]]] = [
        ((adapter,), {"controls": one}),
        ((), {"controls": two}),
        ((), {"controls": one, "begin": Begin(picture, 0.6)}),
        ((), {}),
    ]
    alone = []
    for uses, more in asked:
        alone += server.draw(server.sample(PROMPT, 3, *uses, steps=4, **more))
    together = server.draw(*(server.sample(PROMPT, 3, *uses, steps=4, **more) for uses, more in asked))
    for number, picture_of_diffusers in enumerate(expected):
        assert largest(alone[number], picture_of_diffusers) <= CLOSE, number
        assert largest(together[number], picture_of_diffusers) <= CLOSE, number
    assert largest(alone[1], expected[3]) > 100 * CLOSE


@pytest.mark.parametrize("size", [Size(96, 64), Size(64, 96), Size(72, 40)])
def test_images_that_are_not_square_are_those_of_diffusers(family_folder: Path, size: Size) -> None:
    width, height = size
    sides = {"width": width, "height": height}
    picture = cloudy(size)
    half = Image.new("L", size)
    half.paste(255, (0, 0, width // 2, height))
    server = Server(family_folder)
    network = tiny.control_network(fresh(family_folder))
    for weight in network.parameters():
        weight.data *= 0.5
    controls = [Control(network, shown(0, width, height), 0.7)]
    plain = asked_of(DiffusionPipeline.from_pretrained(family_folder), steps=4, **sides)
    inpainting = AutoPipelineForInpainting.from_pretrained(family_folder)
    masked = asked_of(inpainting, steps=4, image=picture, mask_image=half, strength=0.5, **sides)
    steered = steered_by_diffusers(family_folder, controls, lambda _: None)
    mask = latent_mask(half, server.base.pipeline.vae_scale_factor)
    samples = [
        server.sample(PROMPT, 3, steps=4, size=size),
        server.sample(PROMPT, 3, steps=4, size=size, begin=Begin(picture, 0.5, mask)),
        server.sample(PROMPT, 3, steps=4, size=size, controls=controls),
    ]
    for drawn, expected in zip(server.draw(*samples), (plain, masked, steered), strict=True):
        assert drawn.shape[-2:] == (height, width)
        assert largest(drawn, expected) <= CLOSE


def test_a_control_acts_where_its_mask_lets_it_whoever_shares_the_batch(base_folder: Path) -> None:
    server = Server(base_folder)
    network = tiny.control_network(server.base)
    left = torch.ones(1, 1, tiny.SIDE, tiny.SIDE)
    left[..., tiny.SIDE // 2 :] = 0
    masks = (None, left, torch.zeros_like(left))
    samples = [server.sample(PROMPT, 3, controls=[Control(network, shown(0), mask=mask)]) for mask in masks]
    everywhere, half, nowhere, plain = server.draw(*samples, server.sample(PROMPT, 3))
    assert largest(nowhere, plain) <= CLOSE
    assert largest(half, plain) > 100 * CLOSE
    assert largest(half, everywhere) > 100 * CLOSE
