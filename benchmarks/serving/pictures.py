"""Pictures before they are rounded: ours beside those of plain diffusers, and alone beside in a batch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from benchmarks.serving.materials import Materials, Model, disturb, fresh, tiny, write_lora
from benchmarks.serving.results import Figure, Found
from entrypoints.adapters.embedding import Embedding
from entrypoints.models.control import Control
from entrypoints.serving.engine import Engine
from entrypoints.serving.low_rank_file import read_low_rank
from entrypoints.serving.sample import Sample, SampleRequest, start
from entrypoints.serving.slots import Slot, SlotNetwork, SlotUse, rank_of
from entrypoints.serving.texts import ServedWord, TextReader, TextRequest
from orchestrator.contract.adapter import LORA_FILE, LORA_LOADING
from orchestrator.contract.buckets import Size

BAR = 1e-5
"""Of the largest difference of two pictures with values from 0 to 1."""
SLOTS = 8
PROMPT = "a photo of a toy dog"
SEED = 3
WEIGHT = 0.7
_WORD = "<toy>"
_ENCODERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}


class Bare:
    """The server's engine without its queue."""

    def __init__(self, model: Model, slots: int = SLOTS) -> None:
        self.model = model
        self.slots = slots
        self.base = fresh(model.folder)
        self.denoiser = SlotNetwork(self.base.denoiser)
        self.encoders = {part: SlotNetwork(encoder) for part, encoder in self.base.text_encoders.items()}
        self.engine = Engine(self.base, self.denoiser)
        self.reader = TextReader(self.base, self.encoders)
        self._taken = 0

    def load(self, folder: Path) -> Slot:
        """Put an adapter into a slot."""
        weights = read_low_rank(self.base, folder / LORA_FILE)
        rank = max(rank_of(pairs) for pairs in weights.parts.values())
        slot = Slot(rank, self._taken)
        self._taken += 1
        for part, network in {self.base.family.denoiser: self.denoiser, **self.encoders}.items():
            network.put(slot, self.slots, weights.parts.get(part, {}))
        return slot

    def sample(
        self,
        seed: int,
        uses: Sequence[SlotUse] = (),
        *,
        prompt: str = PROMPT,
        steps: int | None = None,
        guidance: float | None = None,
        words: tuple[ServedWord, ...] = (),
        controls: Sequence[Control] = (),
    ) -> Sample:
        """Return an image before its first step."""
        model = self.model
        guidance = model.guidance if guidance is None else guidance
        hashes = tuple((str(use.slot), use.weight) for use in uses)
        text = TextRequest(prompt, None, guidance > 1, words, tuple(uses), hashes)
        request = SampleRequest(
            self.reader.conditions(text),
            seed,
            steps or model.steps,
            guidance,
            Size(model.size, model.size),
            uses,
            controls,
        )
        return start(self.base, request)

    def draw(self, *samples: Sample) -> list[Tensor]:
        """Draw images together; those with fewer steps leave early."""
        while any(not sample.is_done for sample in samples):
            self.engine.step([sample for sample in samples if not sample.is_done])
        return [pixels(self.base.pipeline, sample.latents) for sample in samples]


@torch.no_grad()
def pixels(pipeline: Any, latents: Tensor) -> Tensor:
    """Return a picture from 0 to 1, before it is rounded or cut."""
    decoded: Tensor = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return decoded / 2 + 0.5


def difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two pictures."""
    return float((one - other).abs().max())


class Case(NamedTuple):
    """A picture by both."""

    name: str
    ours: Tensor
    theirs: Tensor


def by_diffusers(model: Model, prepare: Callable[[Any], Any], prompt: str = PROMPT, **more: Any) -> Tensor:
    """Draw with plain diffusers; `prepare` is given the pipeline and may return another."""
    plain = DiffusionPipeline.from_pretrained(model.folder)
    pipeline = prepare(plain) or plain
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        prompt,
        generator=torch.Generator("cpu").manual_seed(SEED),
        num_inference_steps=model.steps,
        guidance_scale=model.guidance,
        height=model.size,
        width=model.size,
        output_type="latent",
        **more,
    ).images
    return pixels(pipeline, latents)


def with_lora(model: Model, folder: Path, name: str) -> Case:
    """Draw with a LoRA at a weight below one."""

    def prepare(pipeline: Any) -> None:
        pipeline.load_lora_weights(str(folder), adapter_name="a", **LORA_LOADING)
        pipeline.set_adapters(["a"], [WEIGHT])

    ours = Bare(model)
    (drawn,) = ours.draw(ours.sample(SEED, [SlotUse(ours.load(folder), WEIGHT)]))
    return Case(name, drawn, by_diffusers(model, prepare))


def with_word(model: Model, folder: Path, name: str) -> Case:
    """Draw with a learned word of two vectors."""
    tuner = Embedding(fresh(model.folder), placeholder=_WORD, initializer="dog", vectors=2)
    disturb(tuner, 1)
    folder.mkdir()
    tuner.save(folder, {"format": "pt"})
    rows = {part: embedding.word().detach() for part, embedding in tuner.embeddings.items()}
    prompt = f"a photo of {_WORD}"

    def prepare(pipeline: Any) -> None:
        for part, of_part in rows.items():
            tokenizer = getattr(pipeline, _ENCODERS[part])
            encoder = getattr(pipeline, part)
            pipeline.load_textual_inversion(of_part, token=_WORD, text_encoder=encoder, tokenizer=tokenizer)

    ours = Bare(model)
    (drawn,) = ours.draw(ours.sample(SEED, prompt=prompt, words=(ServedWord(_WORD, "1", rows),)))
    return Case(name, drawn, by_diffusers(model, prepare, prompt))


def with_controls(model: Model, name: str) -> Case:
    """Draw with two ControlNets at scales of their own."""
    ours = Bare(model)
    controls = []
    for seed, scale in ((0, 1.0), (1, 0.6)):
        shown = torch.rand(1, 3, model.size, model.size, generator=torch.Generator().manual_seed(seed))
        controls.append(Control(tiny.control_network(ours.base, seed), shown, scale))

    def prepare(pipeline: Any) -> Any:
        controlled = type(pipeline).__name__.replace("Pipeline", "ControlNetPipeline")
        return getattr(diffusers, controlled).from_pipe(pipeline, controlnet=[one.network for one in controls])

    theirs = by_diffusers(
        model,
        prepare,
        image=[one.condition for one in controls],
        controlnet_conditioning_scale=[one.scale for one in controls],
    )
    (drawn,) = ours.draw(ours.sample(SEED, controls=controls))
    return Case(name, drawn, theirs)


def parity(materials: Materials) -> Found:
    """Draw with each kind of adapter by both."""
    cases = []
    folder = materials.folder / "parity"
    folder.mkdir()
    for place, model in enumerate((materials.smallest, materials.sdxl)):
        for kind, text in (("LoRA", False), ("LoRA with text encoders", True)):
            own = write_lora(folder / f"{place}{text}", model.folder, 1, text=text, targets="all", rank=3)
            cases.append(with_lora(model, own, f"{kind}, {model.name}"))
        cases.append(with_word(model, folder / f"{place}word", f"learned word, {model.name}"))
        cases.append(with_controls(model, f"two ControlNets, {model.name}"))
    if not materials.quick:
        (own,) = materials.adapters(materials.builtin, 1)
        cases.append(with_lora(materials.builtin, own, "LoRA, built-in"))
    figures = []
    for case in cases:
        figures.append(Figure(what=case.name, value=difference(case.ours, case.theirs), bar=BAR))
    return Found(
        figures=tuple(figures),
        notes=(f"Largest difference of pictures with values from 0 to 1, by the same seed; LoRAs at {WEIGHT}.",),
    )


def batch(materials: Materials) -> Found:
    """Draw eight requests together, and each of them alone."""
    figures = []
    for model in materials.measured:
        ours = Bare(model)
        slots = [ours.load(folder) for folder in materials.adapters(model, SLOTS)]

        def samples(ours: Bare = ours, slots: Sequence[Slot] = slots) -> list[Sample]:
            found = []
            for number, slot in enumerate(slots):
                steps = 2 + number % 3
                guidance = 1.0 + number % 4
                uses = [SlotUse(slot, 0.3 + 0.2 * number)]
                found.append(ours.sample(number, uses, prompt=f"{PROMPT} {number}", steps=steps, guidance=guidance))
            return found

        together = ours.draw(*samples())
        worst = 0.0
        for beside, sample in zip(together, samples(), strict=True):
            (alone,) = ours.draw(sample)
            worst = max(worst, difference(alone, beside))
        figures.append(Figure(what=f"largest difference, {model.name}", value=worst, bar=BAR))
    note = "Eight adapters, each with a weight, prompt, seed, guidance (one without) and number of steps of its own."
    return Found(figures=tuple(figures), notes=(note,))
