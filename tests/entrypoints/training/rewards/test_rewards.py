"""Rewards and their sums: which images they prefer, and what a person is told when one fails."""

import json
import os
import random
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image, ImageEnhance
from safetensors.torch import load_file, save_file

from entrypoints.evaluation.metrics import clip_scorer, load_scorer
from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_base_model
from entrypoints.runtime.failures import TrainingError
from entrypoints.training.rewards.aesthetic import Aesthetic
from entrypoints.training.rewards.alignment import ClipAlignment
from entrypoints.training.rewards.jpeg import JpegCompressibility, JpegIncompressibility, kilobytes
from entrypoints.training.rewards.opening import open_rewards
from entrypoints.training.rewards.rewards import Opened, Rewards
from entrypoints.training.run import Run
from orchestrator.contract.environment import SCORER_CHANNEL, Environment
from orchestrator.contract.linear_head import HEAD_FILE
from orchestrator.contract.rewards import REWARDS_CHANNEL, RewardUse
from orchestrator.resources import AESTHETIC_HEAD, ASSETS

CPU = torch.device("cpu")
SIZES = (128, 64, 1)
LAION_HEAD = os.environ.get("LAION_AESTHETIC_HEAD")
"""Path of LAION's head as safetensors, which docs/rewards.md says how to get."""


def noisy(seed: int, side: int = 32) -> Image.Image:
    return Image.frombytes("RGB", (side, side), random.Random(seed).randbytes(3 * side * side))


def flat(colour: str = "red", side: int = 32) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def write_head(path: Path, sizes: tuple[int, ...], prefix: str = "layers.") -> Path:
    """A head with random weights, between whose layers are those of a dropout, which have none."""
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for place, (inputs, outputs) in enumerate(pairwise(sizes)):
        tensors[f"{prefix}{2 * place}.weight"] = torch.randn(outputs, inputs, generator=random)
        tensors[f"{prefix}{2 * place}.bias"] = torch.randn(outputs, generator=random)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


class Fixed:
    """A reward that returns what it is told to."""

    name = "fixed"

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0

    def scores(self, *_: Any) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def fixed(answer: Any, **settings: Any) -> Opened:
    name = settings.pop("name", "fixed")
    return Opened(RewardUse(name=name, **settings), Fixed(answer))


def of(*opened: Opened, images: int = 2) -> Any:
    return Rewards(opened).of([flat()] * images, ["a"] * images, [0] * images)


def warnings(capfd: pytest.CaptureFixture[str]) -> list[str]:
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    return [event["message"] for event in events if event["event"] == "warning"]


# JPEG.


def test_noise_is_incompressible_and_one_colour_is_compressible() -> None:
    images = [noisy(0, 64), flat(side=64)]
    large, small = JpegIncompressibility().scores(images, ["a", "b"], [0, 0])
    assert large > 3 * small > 0
    assert JpegCompressibility().scores(images, ["a", "b"], [0, 0]) == [-large, -small]


def test_what_a_file_says_beside_its_pixels_is_no_reward(tmp_path: Path) -> None:
    plain = flat()
    commented = flat()
    commented.info.update(comment=b"x" * 5000, exif=b"Exif\0\0" + b"x" * 5000, icc_profile=b"x" * 5000)
    assert kilobytes(commented) == kilobytes(plain)


def test_kilobytes_are_those_of_a_file_of_quality_95(tmp_path: Path) -> None:
    noisy(1).save(tmp_path / "a.jpg", quality=95)
    assert kilobytes(noisy(1)) == (tmp_path / "a.jpg").stat().st_size / 1000


# Sums.


def test_the_total_is_the_weighted_sum_and_each_is_kept_without_its_weight() -> None:
    found = of(fixed([1, 2.5], name="a", weight=2), fixed((10.0, 20.0), name="b", weight=-0.5))
    assert found.total == [2 * 1 - 5, 2 * 2.5 - 10]
    assert found.each == {"a": [1.0, 2.5], "b": [10.0, 20.0]}


def test_equal_images_have_equal_scores(base: BaseModel, job: Any, tmp_path: Path) -> None:
    run = Run(job(tiny.dreambooth()), tiny.dreambooth())
    rewards = open_rewards([RewardUse(name="jpeg-compressibility"), RewardUse(name="prompt-alignment")], run, base)
    images, prompts, groups = [noisy(0), noisy(1)], ["a dog", "a toy"], [0, 1]
    assert rewards.of(images, prompts, groups) == rewards.of(images, prompts, groups)


BROKEN = {
    "too few": ([1.0], "it returned 1 scores for 2 images"),
    "no list": (1.0, "it returned a float instead of a list"),
    "text": ("ab", "it returned a str instead of a list"),
    "nan": ([1.0, float("nan")], "its score of image 1 is nan"),
    "infinite": ([float("inf"), 1.0], "its score of image 0 is inf"),
    "no number": ([1.0, "good"], "its score of image 1 is 'good', which is no number"),
    "truth": ([1.0, True], "its score of image 1 is True, which is no number"),
    "none": ([None, 1.0], "its score of image 0 is None, which is no number"),
    "error": (KeyError("lamp"), "KeyError: 'lamp'"),
    "silent error": (RuntimeError(), "RuntimeError: RuntimeError"),
}


@pytest.mark.parametrize(("answer", "told"), BROKEN.values(), ids=BROKEN)
def test_a_required_reward_that_fails_is_named_with_the_reason(answer: Any, told: str) -> None:
    with pytest.raises(TrainingError) as raised:
        of(fixed([1.0, 2.0], name="fine"), fixed(answer, name="broken"))
    assert raised.value.kind == "reward"
    assert raised.value.message == f'The reward "broken" failed: {told}' or told in raised.value.message
    assert '"broken"' in raised.value.message
    assert '{"name": "broken", "required": false}' in raised.value.next_step


@pytest.mark.parametrize(("answer", "told"), BROKEN.values(), ids=BROKEN)
def test_one_that_is_not_required_counts_as_0_and_is_told_once(
    answer: Any, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = fixed(answer, name="broken", required=False)
    rewards = Rewards([fixed([1.0, 2.0], name="fine"), broken])
    for _ in range(3):
        found = rewards.of([flat()] * 2, ["a"] * 2, [0] * 2)
        rest = 1.0 if answer == [None, 1.0] else 0.0
        assert found.each["broken"] == [0.0, rest]
        assert found.total == [1.0, 2.0 + rest]
    (message,) = warnings(capfd)
    assert "broken" in message
    assert broken.reward.asked == 3  # it may come back


def test_out_of_memory_is_not_the_fault_of_a_reward() -> None:
    with pytest.raises(MemoryError):
        of(fixed(MemoryError(), required=False))


# CLIP.


@pytest.fixture(scope="module")
def builtin() -> BaseModel:
    return load_base_model(ASSETS / "base_model", "builtin", None, CPU)


def pictures() -> tuple[list[Image.Image], list[str]]:
    """Pictures of the packaged style, and what is on each."""
    folder = ASSETS / "style"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()][:12]
    return [Image.open(folder / row["file_name"]).convert("RGB") for row in rows], [row["text"] for row in rows]


def test_pictures_are_aligned_with_their_own_captions_and_not_with_those_of_others(builtin: BaseModel) -> None:
    scorer = clip_scorer(builtin)
    assert scorer is not None
    images, captions = pictures()
    others = captions[1:] + captions[:1]
    groups = list(range(len(images)))
    own = ClipAlignment(scorer).scores(images, captions, groups)
    wrong = ClipAlignment(scorer).scores(images, others, groups)
    better = sum(one > other for one, other in zip(own, wrong, strict=True))
    assert better >= len(images) - 1
    expected = (scorer.embed_images(images[:1]) * scorer.embed_texts(captions[:1])).sum()
    assert own[0] == pytest.approx(float(expected), abs=1e-6)


def test_a_head_computes_what_its_layers_say(builtin: BaseModel, tmp_path: Path) -> None:
    scorer = clip_scorer(builtin)
    assert scorer is not None
    path = write_head(tmp_path / HEAD_FILE, SIZES)
    tensors = load_file(path)
    images = [noisy(0, 64), flat(side=64)]
    hidden = scorer.embed_images(images) @ tensors["layers.0.weight"].T + tensors["layers.0.bias"]
    expected = hidden @ tensors["layers.2.weight"].T + tensors["layers.2.bias"]
    found = Aesthetic(scorer, path).scores(images, ["a", "b"], [0, 0])
    torch.testing.assert_close(torch.tensor(found), expected.squeeze(1), rtol=1e-4, atol=1e-4)


def test_the_packaged_head_prefers_colours(builtin: BaseModel) -> None:
    scorer = clip_scorer(builtin)
    assert scorer is not None
    images, captions = pictures()
    pale = [ImageEnhance.Color(image).enhance(0.2) for image in images]
    head = Aesthetic(scorer, AESTHETIC_HEAD)
    groups = [0] * len(images)
    before, after = head.scores(images, captions, groups), head.scores(pale, captions, groups)
    lost = [one - other for one, other in zip(before, after, strict=True)]
    assert min(lost) > 0
    assert sum(lost) / len(lost) > 4  # points; what they lose in colourfulness is 8


@pytest.mark.skipif(LAION_HEAD is None, reason="without LAION's head")
def test_the_head_of_laion_judges_embeddings_of_its_width(builtin: BaseModel, tmp_path: Path) -> None:
    scorer = clip_scorer(builtin)
    assert scorer is not None
    scorer.clip.config.projection_dim, own = 768, scorer.clip.config.projection_dim
    try:
        head = Aesthetic(scorer, Path(str(LAION_HEAD)))
    finally:
        scorer.clip.config.projection_dim = own
    assert [weight.shape[0] for weight, _ in head.layers] == [1024, 128, 64, 16, 1]
    random = torch.nn.functional.normalize(torch.randn(8, 768, generator=torch.Generator().manual_seed(0)), dim=-1)
    scores = head.judge(random)
    assert scores.isfinite().all()
    assert scores.std() > 0.1


def test_a_run_reads_weights_from_its_channel(base: BaseModel, job: Any, tmp_path: Path) -> None:
    environment = job(tiny.dreambooth())
    run = Run(environment, tiny.dreambooth())
    use = RewardUse(name="aesthetic", path="/elsewhere/head.safetensors")
    with pytest.raises(TrainingError, match='weights of the reward "aesthetic" did not reach the job'):
        open_rewards([use], run, base)
    assert base.clip is not None
    folder = environment.root / "input" / "data" / REWARDS_CHANNEL / "aesthetic"
    write_head(folder / HEAD_FILE, (base.clip.config.projection_dim, 1))
    (score,) = open_rewards([use], run, base).of([noisy(0)], ["a dog"], [0]).total
    assert score != 0
    write_head(folder / HEAD_FILE, (7, 1))
    with pytest.raises(TrainingError, match=r'"aesthetic" cannot be used: ValueError: layers.0.weight of .* takes 7'):
        open_rewards([use], run, base)
    (folder / HEAD_FILE).write_bytes(b"no weights")
    with pytest.raises(TrainingError, match='"aesthetic" cannot be used'):
        open_rewards([use], run, base)


def test_the_clip_of_the_scorer_channel_goes_before_the_model_s_own(base: BaseModel, job: Any, tmp_path: Path) -> None:
    environment = job(tiny.dreambooth())
    run = Run(environment, tiny.dreambooth())
    use = RewardUse(name="prompt-alignment")
    images, prompts = [noisy(0)], ["a dog"]
    own = open_rewards([use], run, base).of(images, prompts, [0])
    folder = shutil.copytree(ASSETS / "base_model" / "clip", tmp_path / "scorer")
    for file in (ASSETS / "base_model" / "tokenizer").iterdir():
        shutil.copy(file, folder)
    (environment.root / "input" / "data" / SCORER_CHANNEL).symlink_to(folder, target_is_directory=True)
    other = open_rewards([use], run, base).of(images, prompts, [0])
    expected = ClipAlignment(load_scorer(folder, CPU)).scores(images, prompts, [0])
    assert other.total == expected != own.total


def test_without_any_clip_a_person_is_told_what_to_name(job: Any, tmp_path: Path) -> None:
    run = Run(job(tiny.dreambooth()), tiny.dreambooth())
    bare = load_base_model(tiny.write_base_model(tmp_path / "bare", clip=False), "bare", None, CPU)
    with pytest.raises(TrainingError) as raised:
        open_rewards([RewardUse(name="prompt-alignment")], run, bare)
    assert "--scorer" in raised.value.next_step


# Packages.


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package: a module beside the metadata that pip would write."""

    def install(code: str, name: str = "roundness", module: str = "shape_rewards", function: str = "judge") -> None:
        site = tmp_path / f"site-{module}"
        info = site / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[orchestrator.rewards]\n{name} = {module}:{function}\n")
        monkeypatch.syspath_prepend(str(site))

    return install


def opened(base: BaseModel, name: str = "roundness") -> Rewards:
    run = Run(Environment(root=Path("/nowhere")), tiny.dreambooth())
    return open_rewards([RewardUse(name=name)], run, base)


def test_a_function_of_a_package_is_a_reward(base: BaseModel, package: Any) -> None:
    package(
        "def judge(images, prompts):\n"
        "    images[0].putpixel((0, 0), (0, 0, 0))\n"  # its own copy
        "    return [float(len(prompt)) for prompt in prompts]\n"
    )
    image = flat()
    assert opened(base).of([image, flat()], ["a", "dog"], [0, 0]).total == [1.0, 3.0]
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_a_groupwise_function_sees_the_groups_and_may_return_an_array(base: BaseModel, package: Any) -> None:
    code = "import numpy\ndef judge(images, prompts, groups):\n    return numpy.array(groups) * 2\n"
    package(code, name="ranks", module="rank_rewards")
    assert opened(base, "ranks").of([flat()] * 3, ["a"] * 3, [0, 0, 4]).total == [0.0, 0.0, 8.0]


def test_a_package_that_is_missing_or_broken_or_there_twice_is_named(base: BaseModel, package: Any) -> None:
    with pytest.raises(TrainingError, match='no reward "roundness" where the job runs'):
        opened(base)
    package("import module_that_is_not_there\n", module="broken_rewards")
    with pytest.raises(TrainingError, match=r"broken_rewards:judge\) cannot be loaded: ModuleNotFoundError"):
        opened(base)
    package("def judge(images, prompts): ...\n", module="other_rewards")
    with pytest.raises(TrainingError, match=r"Two packages offer .*broken_rewards:judge and other_rewards:judge"):
        opened(base)


def test_a_misspelt_reward_is_told_the_right_name(base: BaseModel) -> None:
    with pytest.raises(TrainingError) as raised:
        opened(base, "aesthetics")
    assert 'did you mean "aesthetic"?' in raised.value.next_step
