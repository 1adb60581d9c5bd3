"""Several adapters in one base model, and one combination after another."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from drawn_adapters import sha256_of, write_adapters
from torch import Tensor

from entrypoints.adapters.combining import Combining
from entrypoints.adapters.loading import load_adapter
from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_base_model
from entrypoints.models.sampling import Drawing, DrawRequest, draw
from orchestrator.contract.batch_result import SampleAdapter


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """Adapters as a job has them: each in a folder that is named by its hash."""
    folder = write_adapters(tmp_path_factory.mktemp("adapters"), base_folder)
    for path in list(folder.iterdir()):
        (folder / sha256_of(folder, path.name)).symlink_to(path, target_is_directory=True)
    return folder


@pytest.fixture
def models(base_folder: Path, channel: Path) -> Combining:
    return Combining(lambda: load_base_model(base_folder, "tiny", None, torch.device("cpu")), channel)


def used(channel: Path, *uses: tuple[str, float]) -> Sequence[SampleAdapter]:
    return [SampleAdapter(name=name, sha256=sha256_of(channel, name), weight=weight) for name, weight in uses]


@torch.no_grad()
def prediction(base: BaseModel) -> Tensor:
    """Return what the base model makes of some noise and a prompt."""
    conditions = base.encode_prompts(["a photo of a dog"])
    noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return base.predict(noisy, torch.tensor([500]), conditions)


def test_what_several_adapters_change_adds_up_in_any_order(models: Combining, base_folder: Path, channel: Path) -> None:
    merged = load_base_model(base_folder, "tiny", None, torch.device("cpu"))
    load_adapter(merged, channel / "dog", 0.8)
    merged.pipeline.fuse_lora()
    merged.pipeline.unload_lora_weights()
    merged.adapters.clear()
    load_adapter(merged, channel / "ink", 0.5)
    expected = prediction(merged)
    together = prediction(models.base_with(used(channel, ("dog", 0.8), ("ink", 0.5))))
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=0)
    other_order = prediction(models.base_with(used(channel, ("ink", 0.5), ("dog", 0.8))))
    torch.testing.assert_close(other_order, expected, atol=1e-4, rtol=0)
    alone = prediction(models.base_with(used(channel, ("dog", 0.8))))
    assert (alone - expected).abs().max() > 1e-2


def test_no_adapter_leaves_anything_behind(models: Combining, channel: Path) -> None:
    before = prediction(models.base_with(()))
    base = models.base_with(())
    for uses in ([("dog", 0.8)], [("dog", 1.0), ("ink", -0.5)], [("ink", 1.0)]):
        changed = prediction(models.base_with(used(channel, *uses)))
        assert not torch.equal(changed, before)
        assert torch.equal(prediction(models.base_with(())), before)
        assert models.base_with(()) is base  # LoRA weights are taken out, and the model is not loaded again
    models.base_with(used(channel, ("dog", 1.0), ("word", 1.0)))
    assert torch.equal(prediction(models.base_with(())), before)
    assert models.base_with(()) is not base


def test_a_learned_word_is_used_beside_other_adapters(models: Combining, channel: Path) -> None:
    drawing = Drawing(steps=2, guidance=2.0, size=32)

    def drawn(*uses: tuple[str, float]) -> bytes:
        base = models.base_with(used(channel, *uses))
        (image,) = draw(base, [DrawRequest("a photo of a <word>", 0)], drawing, lambda: None)
        return image.tobytes()

    assert len({drawn(("dog", 1.0)), drawn(("word", 1.0)), drawn(("word", 1.0), ("dog", 1.0))}) == 3
    assert drawn(("word", 1.0), ("dog", 1.0)) == drawn(("dog", 1.0), ("word", 1.0))
