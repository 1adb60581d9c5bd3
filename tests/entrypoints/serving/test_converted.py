"""Relatives of LoRA out of slots: the pictures that they draw merged into the base model, or a reason why not."""

from pathlib import Path

import pytest
import tiny
import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from made_adapters import disturb, fresh
from safetensors.torch import load_file, save_file

from entrypoints.adapters.full import Full
from entrypoints.adapters.loading import load_adapter
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.peft_layout import PeftLayout
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from entrypoints.serving.converted import factors_of
from entrypoints.serving.engine import Engine
from entrypoints.serving.residency import SlotTable
from entrypoints.serving.sample import SampleRequest, start
from entrypoints.serving.served import ServedAdapter, read_adapter
from entrypoints.serving.slots import SlotNetwork, SlotUse
from entrypoints.serving.texts import TextReader, TextRequest
from orchestrator.contract.adapter import LORA_FILE, PEFT_CONFIG_FILE, AdapterManifest
from orchestrator.contract.buckets import Size

PROMPT = "a photo of a toy dog"
STEPS = 3
GUIDANCE = 5.0
CLOSE = 1e-5
KINDS = ["dora", "dora with text", "lokr", "loha", "oft"]


def written(folder: Path, model: Path, kind: str, *, targets: str = "attention") -> AdapterManifest:
    """Write an adapter of a relative of LoRA, disturbed as training would."""
    base = fresh(model)
    name, _, text = kind.partition(" with ")
    tuner: Tuner
    if kind == "dora":
        tuner = Lora(base, rank=2, alpha=4, text_encoder=False, seed=1, targets=targets, dora=True)
    else:
        tuner = PeftLayout(base, name, rank=2, alpha=4, text_encoder=bool(text), seed=1, targets=targets)
    disturb(tuner, 1)
    return finished(folder, base, tuner)


def finished(folder: Path, base: BaseModel, tuner: Tuner) -> AdapterManifest:
    folder.mkdir()
    tuner.save(folder, {"format": "pt"})
    manifest = AdapterManifest(
        kind=tuner.kind,
        parts=tuner.parts,
        recipe="lora",
        config={"tuner": "dora"} if tuner.kind == "lora" else {},
        base_model=base.reference,
        dataset_sha256="",
        bundle_sha256="",
        libraries={},
    )
    return manifest.write(folder)


def picture(base: BaseModel, adapter: ServedAdapter | None, weight: float = 1.0) -> torch.Tensor:
    """Return what the server's engine draws, with an adapter in a slot or as the base model is."""
    denoiser = SlotNetwork(base.denoiser)
    encoders = {part: SlotNetwork(encoder) for part, encoder in base.text_encoders.items()}
    uses = []
    if adapter is not None:
        assert adapter.weights is not None
        slots = SlotTable({base.family.denoiser: denoiser, **encoders}, 2)
        uses = [SlotUse(slots.hold(adapter.key, adapter.weights).slot, weight)]
    reader = TextReader(base, encoders)
    conditions = reader.conditions(TextRequest(PROMPT, None, True, (), tuple(uses)))
    sample = start(base, SampleRequest(conditions, 3, STEPS, GUIDANCE, Size(tiny.SIDE, tiny.SIDE), uses))
    engine = Engine(base, denoiser)
    while not sample.is_done:
        engine.step([sample])
    with torch.no_grad():
        decoded = base.pipeline.vae.decode(sample.latents / base.pipeline.vae.config.scaling_factor).sample
    return decoded / 2 + 0.5


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_relative_of_lora_draws_in_a_slot_what_it_draws_in_the_base_model(
    family_folder: Path, tmp_path: Path, kind: str
) -> None:
    manifest = written(tmp_path / "a", family_folder, kind)
    merged = fresh(family_folder)
    load_adapter(merged, tmp_path / "a")
    expected = picture(merged, None)
    base = fresh(family_folder)
    adapter = read_adapter(base, tmp_path / "a", manifest)
    assert far(picture(base, adapter), expected) <= CLOSE
    assert far(picture(fresh(family_folder), None), expected) > 100 * CLOSE
    assert adapter.has_strength == (kind in ("lokr", "loha"))


@pytest.mark.parametrize("kind", ["dora", "lokr"])
def test_convolutions_are_converted_too(base_folder: Path, tmp_path: Path, kind: str) -> None:
    manifest = written(tmp_path / "a", base_folder, kind, targets="all")
    merged = fresh(base_folder)
    load_adapter(merged, tmp_path / "a")
    expected = picture(merged, None)
    base = fresh(base_folder)
    adapter = read_adapter(base, tmp_path / "a", manifest)
    assert adapter.weights is not None
    assert any(pair.a.ndim == 4 for pair in adapter.weights.parts["unet"].values())
    assert far(picture(base, adapter), expected) <= CLOSE


def test_what_has_a_strength_draws_at_half_of_it_what_it_draws_in_the_base_model(
    base_folder: Path, tmp_path: Path
) -> None:
    manifest = written(tmp_path / "a", base_folder, "lokr")
    merged = fresh(base_folder)
    load_adapter(merged, tmp_path / "a", 0.5)
    base = fresh(base_folder)
    adapter = read_adapter(base, tmp_path / "a", manifest)
    assert far(picture(base, adapter, 0.5), picture(merged, None)) <= CLOSE


def test_an_adapter_is_converted_from_the_weights_below_the_slots_that_a_base_model_has(
    base_folder: Path, tmp_path: Path
) -> None:
    first = written(tmp_path / "a", base_folder, "loha")
    second = written(tmp_path / "b", base_folder, "dora")
    base = fresh(base_folder)
    before = {name: weight.clone() for name, weight in base.denoiser.state_dict().items()}
    picture(base, read_adapter(base, tmp_path / "a", first))
    slotted = read_adapter(base, tmp_path / "b", second)
    plain = read_adapter(fresh(base_folder), tmp_path / "b", second)
    assert slotted.weights is not None
    assert plain.weights is not None
    for layer, pair in plain.weights.parts["unet"].items():
        other = slotted.weights.parts["unet"][layer]
        assert torch.equal(pair.b @ pair.a, other.b @ other.a)
    after = {name.replace(".layer.", "."): weight for name, weight in base.denoiser.state_dict().items()}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_a_change_is_taken_apart_into_as_few_factors_as_it_has() -> None:
    random = torch.Generator().manual_seed(0)
    low = torch.randn(40, 3, generator=random) @ torch.randn(3, 60, generator=random)
    assert len(factors_of("x", low).a) == 3
    kernel = torch.randn(8, 4, 3, 3, generator=random)
    pair = factors_of("x", kernel)
    assert pair.a.shape[1:] == (4, 3, 3)
    assert far((pair.b @ pair.a.flatten(1)).view_as(kernel), kernel) <= 1e-5
    large = torch.randn(600, 5, generator=random) @ torch.randn(5, 700, generator=random)
    pair = factors_of("x", large)
    assert len(pair.a) == 5
    assert far(pair.b @ pair.a, large) <= 1e-4
    assert len(factors_of("x", torch.zeros(4, 4)).a) == 1


@pytest.mark.parametrize("size", [300, 600])
def test_a_change_in_more_directions_than_a_slot_holds_is_refused(size: int) -> None:
    change = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    with pytest.raises(TrainingError, match="more directions than the 256") as raised:
        factors_of("unet.layer", change)
    assert "adapters draw" in raised.value.next_step


def test_whole_weights_are_refused_with_what_to_do(base_folder: Path, tmp_path: Path) -> None:
    base = fresh(base_folder)
    tuner = Full(base, text_encoder=False)
    manifest = finished(tmp_path / "a", base, tuner)
    with pytest.raises(TrainingError, match='kind "full"') as raised:
        read_adapter(fresh(base_folder), tmp_path / "a", manifest)
    assert raised.value.next_step


def test_a_configuration_that_says_more_than_is_understood_is_refused(base_folder: Path, tmp_path: Path) -> None:
    manifest = written(tmp_path / "a", base_folder, "lokr")
    path = tmp_path / "a" / "unet" / PEFT_CONFIG_FILE
    text = path.read_text()
    for found, instead, said in (
        ('"modules_to_save": null', '"modules_to_save": ["conv_in"]', "modules_to_save"),
        ('"r": 2', '"r": 100000', "ranks"),
        ('    "to_q",\n', "", "not those that its configuration describes"),
    ):
        assert found in text
        path.write_text(text.replace(found, instead))
        with pytest.raises(TrainingError, match=said):
            read_adapter(fresh(base_folder), tmp_path / "a", manifest.write(tmp_path / "a"))


def test_a_dora_without_all_of_its_lengths_is_refused(base_folder: Path, tmp_path: Path) -> None:
    manifest = written(tmp_path / "a", base_folder, "dora")
    path = tmp_path / "a" / LORA_FILE
    tensors = load_file(path)
    lengths = [name for name in tensors if "magnitude" in name]
    of_others = lengths[0].replace("lora_magnitude_vector", "dora_scale")
    for kept, said in ((lengths[1:], "not every layer"), ([], "without its lengths"), ([of_others], "another program")):
        some = {name: tensor for name, tensor in tensors.items() if name not in lengths}
        for name in kept:
            some[name] = tensors.get(name, tensors[lengths[0]]).clone()
        metadata = {LORA_ADAPTER_METADATA_KEY: '{"unet.use_dora": true}'}
        save_file(some, path, metadata)
        with pytest.raises(TrainingError, match=said):
            read_adapter(fresh(base_folder), tmp_path / "a", manifest.write(tmp_path / "a"))
