"""What a model would not read of prompts, captions and words is known before anything is stored or paid for."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contract.problem import Problem
from orchestrator.errors import DatasetError, OrchestratorError, SpecError
from orchestrator.planning.checks import check_job
from orchestrator.planning.inputs import prepare_inputs
from orchestrator.planning.plan import Plan, plan_here
from orchestrator.resources import BUILTIN_MODEL, SAMPLE_IMAGES
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.building import build_spec
from tests.planned import planned
from tests.stand_ins.model import small_model, write_files

LONG = "a photo of a red dog on a blue background " * 4  # 36 tokens of the built-in model, which reads 30
INVERSION = {"recipe": "textual-inversion", "prompt": "<my-dog>", "settings": {"initializer_token": "dog"}}

Planned = Callable[..., Plan]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return shutil.copytree(SAMPLE_IMAGES, tmp_path / "photos", ignore=shutil.ignore_patterns("*.txt", "*.jsonl"))


@pytest.fixture(params=["here", "sagemaker"])
def plan(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Planned:
    """Plan a job for each target."""
    count = itertools.count()

    def make(fields: dict[str, Any], overrides: dict[str, str] | None = None) -> Plan:
        spec = build_spec(fields, overrides)
        if request.param == "here":
            staging = tmp_path / "staging" / str(next(count))
            return plan_here(spec, settings, prepare_inputs(spec, staging))
        return planned(spec, settings, AwsSettings.placeholder())

    return make


def refused(plan: Planned, fields: dict[str, Any]) -> OrchestratorError:
    with pytest.raises(OrchestratorError) as raised:
        plan(fields)
    return raised.value


def only(problems: tuple[Problem, ...], where: str) -> str:
    """Return the problem of one setting or file."""
    (found,) = [problem.render() for problem in problems if problem.where == where]
    return found


def dreambooth(photos: Path, prompt: str = "a photo of sks dog", **settings: Any) -> dict[str, Any]:
    return {"recipe": "dreambooth", "images": photos, "prompt": prompt, "settings": settings}


@pytest.mark.parametrize("prompt", [f"{LONG} sks dog", f"{LONG} SKS", "a photo of a red dog on " * 4 + "sks dog"])
def test_a_prompt_whose_new_word_is_cut_off_is_refused(plan: Planned, photos: Path, prompt: str) -> None:
    error = refused(plan, dreambooth(photos, prompt, class_prompt="a photo of a dog"))
    assert isinstance(error, SpecError)
    problem = only(error.problems, "instance_prompt")
    assert "the text encoder reads 30" in problem
    assert '"sks" is cut off' in problem


def test_texts_are_not_left_unread_where_a_tokenizer_was_damaged_meanwhile(photos: Path, tmp_path: Path) -> None:
    picture = next(path for path in photos.iterdir() if path.suffix == ".png")
    picture.with_suffix(".txt").write_text("a caption without the word")
    model = write_files(tmp_path / "model", small_model())
    spec = build_spec({**dreambooth(photos), "base_model": str(model)})
    (model / "tokenizer" / "merges.txt").write_text("of\n")
    with pytest.raises(SpecError) as raised:
        check_job(spec, prepare_inputs(spec, tmp_path / "staging"))
    assert "tokenizers of" in only(raised.value.problems, "base_model")


def test_a_rare_token_that_is_read_without_its_class_is_refused(plan: Planned, photos: Path) -> None:
    words = "a photo of a red dog on a blue background, a photo of a red dog on a blue background, a photo of a red"
    fits = f"{words} sks dog"  # 27 + 2 + 1 tokens
    assert "instance_prompt" not in {one.where for one in plan(dreambooth(photos, fits)).warnings}
    error = refused(plan, dreambooth(photos, f"{words} toy sks dog", class_prompt="a dog"))
    assert '"dog"' in only(error.problems, "instance_prompt")


@pytest.mark.parametrize(
    ("chosen", "where"),
    [
        ({"instance_prompt": f"a photo of sks dog, {LONG}", "class_prompt": "a dog"}, "instance_prompt"),
        ({"class_prompt": LONG, "prior_preservation": True}, "class_prompt"),
        ({"validation_prompts": ["a dog", f"a sks dog {LONG}"]}, "validation_prompts[1]"),
        ({"instance_prompt": f"sks {' '.join(['dog'] * 26)}"}, "evaluation_prompts"),
    ],
)
def test_a_text_that_loses_other_words_is_warned_of_with_what_is_lost(
    plan: Planned, photos: Path, chosen: dict[str, Any], where: str
) -> None:
    fields = {"recipe": "dreambooth", "images": photos, "settings": {"instance_prompt": "a sks dog", **chosen}}
    warning = only(plan(fields).warnings, where)
    assert "the text encoder reads 30" in warning
    assert 'nothing reads "' in warning


@pytest.mark.parametrize("new", ["sks dog", "SKS", "sks2 dog"])
def test_a_caption_whose_new_word_is_cut_off_is_refused_and_a_long_one_is_warned_of(
    plan: Planned, photos: Path, new: str
) -> None:
    first, second = sorted(path for path in photos.iterdir() if path.suffix == ".png")[:2]
    first.with_suffix(".txt").write_text(f"{new}, {LONG}")
    assert "blue background" in only(plan(dreambooth(photos)).warnings, first.name)
    second.with_suffix(".txt").write_text(f"{LONG} {new}")
    error = refused(plan, dreambooth(photos))
    assert isinstance(error, DatasetError)
    assert '"sks" is cut off' in only(error.problems, second.name)


def test_many_long_captions_are_counted(plan: Planned, photos: Path) -> None:
    pictures = [path for path in photos.iterdir() if path.suffix == ".png"]
    for number in range(8):
        shutil.copy(pictures[0], photos / f"copy-{number}.png")
        (photos / f"copy-{number}.txt").write_text(f"sks dog, {LONG}")
    warnings = [one for one in plan(dreambooth(photos)).warnings if "text encoder" in one.what]
    assert len(warnings) == 6
    assert warnings[-1].render().startswith("captions: 3 more")


@pytest.mark.parametrize(("vectors", "fits"), [(20, True), (29, False)])
def test_vectors_that_do_not_fit_are_refused(plan: Planned, photos: Path, vectors: int, fits: bool) -> None:
    settings = {"initializer_token": "dog", "vectors": vectors}
    fields = {**INVERSION, "images": photos, "settings": settings}
    if fits:
        assert plan(fields)
        return
    problem = only(refused(plan, fields).problems, "vectors")
    assert f'"<my-dog>" takes {vectors} of them; give it fewer' in problem
    assert "shorten" not in problem


def test_each_of_two_tokenizers_counts(plan: Planned, photos: Path, tmp_path: Path) -> None:
    model = sdxl(tmp_path / "model", first=32, second=12)
    fields = {**dreambooth(photos, "a photo of a red dog on a blue toy sks dog"), "base_model": str(model)}
    assert "the text encoder reads 10" in only(refused(plan, fields).problems, "instance_prompt")


def sdxl(folder: Path, *, first: int, second: int) -> Path:
    """Write an SDXL as far as it is read before a job: with the built-in vocabulary, and texts of these lengths."""
    vocabulary = json.loads((BUILTIN_MODEL / "tokenizer" / "vocab.json").read_text())
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    files = small_model("sdxl", words, {"text_encoder": first, "text_encoder_2": second})
    merges = (BUILTIN_MODEL / "tokenizer" / "merges.txt").read_bytes()
    return write_files(folder, {**files, "tokenizer/merges.txt": merges, "tokenizer_2/merges.txt": merges})


@pytest.mark.parametrize("caption", ["Sks monster", "my SKS", "a photo of sks2", "sks_monster", "SKS-monster"])
def test_a_caption_holds_the_new_word_as_the_tokenizer_reads_it(plan: Planned, photos: Path, caption: str) -> None:
    picture = next(path for path in photos.iterdir() if path.suffix == ".png")
    picture.with_suffix(".txt").write_text(caption)
    assert plan(dreambooth(photos))


@pytest.mark.parametrize("caption", ["A <My-Dog> asleep", "my <MY-DOG>", "two <My-Dog>s"])
def test_a_caption_may_write_the_placeholder_in_capitals_and_in_the_plural(
    plan: Planned, photos: Path, caption: str
) -> None:
    picture = next(path for path in photos.iterdir() if path.suffix == ".png")
    picture.with_suffix(".txt").write_text(caption)
    assert plan({**INVERSION, "images": photos})


@pytest.mark.parametrize("caption", ["a < my-dog > asleep", "a <my-dog>_1"])
def test_a_caption_that_holds_the_placeholder_in_parts_is_refused(plan: Planned, photos: Path, caption: str) -> None:
    picture = next(path for path in photos.iterdir() if path.suffix == ".png")
    picture.with_suffix(".txt").write_text(caption)
    error = refused(plan, {**INVERSION, "images": photos})
    assert 'does not hold "<my-dog>"' in only(error.problems, picture.name)


@pytest.mark.parametrize("caption", ["a monster", "two masks", "sk s"])
def test_a_caption_without_the_new_word_is_refused(plan: Planned, photos: Path, caption: str) -> None:
    picture = next(path for path in photos.iterdir() if path.suffix == ".png")
    picture.with_suffix(".txt").write_text(caption)
    assert 'does not hold "sks"' in only(refused(plan, dreambooth(photos)).problems, picture.name)


def test_capitals_do_not_matter_where_the_tokenizer_cannot_be_read(plan: Planned, photos: Path) -> None:
    picture = next(path for path in photos.iterdir() if path.suffix == ".png")
    picture.with_suffix(".txt").write_text("SKS dog")
    assert plan({**dreambooth(photos), "base_model": "stable-diffusion-v1-5/stable-diffusion-v1-5"})


@pytest.mark.parametrize(
    ("chosen", "where", "words"),
    [
        ({"placeholder_token": "dog", "initializer_token": "dog"}, "placeholder_token", "in the vocabulary"),
        ({"placeholder_token": "<|endoftext|>", "initializer_token": "dog"}, "placeholder_token", "<my-endoftext>"),
        ({"placeholder_token": "DOG", "initializer_token": "dog"}, "placeholder_token", "in the vocabulary"),
        ({"placeholder_token": "<My-Dog>", "initializer_token": "dog", "vectors": 2}, "placeholder_token", "<my-dog>"),
        ({"placeholder_token": "<x>", "initializer_token": "labradoodle"}, "initializer_token", "must be one"),
        ({"placeholder_token": "<x>", "initializer_token": "red-dog"}, "initializer_token", "3 tokens"),
    ],
)
def test_a_word_that_the_vocabulary_cannot_take_is_refused_before_the_job(
    plan: Planned, photos: Path, chosen: dict[str, Any], where: str, words: str
) -> None:
    error = refused(plan, {"recipe": "textual-inversion", "images": photos, "settings": chosen})
    assert isinstance(error, SpecError)
    assert words in only(error.problems, where)


@pytest.mark.parametrize(("rare", "words"), [("dog", "common word"), ("labradoodles", "tokens of this model")])
def test_a_rare_token_that_is_not_rare_is_doubted(plan: Planned, photos: Path, rare: str, words: str) -> None:
    fields = dreambooth(photos, f"a photo of {rare} toy", rare_token=rare)
    assert words in only(plan(fields).warnings, "rare_token")
    assert "rare_token" not in {one.where for one in plan({"recipe": "dreambooth"}).warnings}


def test_pictures_captions_and_words_are_complained_of_together(plan: Planned, photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    error = refused(plan, {**INVERSION, "images": photos, "prompt": "dog"})
    assert {problem.where for problem in error.problems} == {"broken.png", "placeholder_token"}


def test_an_image_without_a_caption_is_refused_by_a_recipe_that_learns_from_captions(
    plan: Planned, photos: Path
) -> None:
    fields = {"recipe": "lora", "images": photos}
    error = refused(plan, fields)
    assert isinstance(error, DatasetError)
    assert "5 images of 5 cannot be trained on without a caption" in error.message
    assert only(error.problems, "subject-1.png") == "subject-1.png: has no caption (write one into subject-1.txt)"
    for number in range(1, 6):
        (photos / f"subject-{number}.txt").write_text("a green monster")
    assert plan(fields).request["HyperParameters"]["recipe"] == '"lora"'


def test_the_sample_of_a_recipe_that_learns_from_captions_has_captions(plan: Planned) -> None:
    assert not [warning for warning in plan({"recipe": "lora"}).warnings if "caption" in warning.what]
