"""What a person can get wrong about an evaluation: one message with the next step, and nothing is started."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from sagemaker_simulator import complaint

from orchestrator.contract.adapter import AdapterManifest, BaseModelReference
from orchestrator.contract.evaluation import PROMPTS_CHANNEL, EvaluationPrompts
from orchestrator.contract.evaluation_result import (
    AskedPrompt,
    DrawnWith,
    Estimate,
    EvaluatedAdapter,
    EvaluationResult,
    Figure,
    Skipped,
    Space,
)
from orchestrator.contract.samples import SampleImage, SampleIndex
from orchestrator.requests import channel_uris
from orchestrator.resources import SAMPLE_IMAGES
from orchestrator.settings import Settings
from orchestrator.storage import folder_of
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.local.process import ProcessTarget
from orchestrator.targets.local.publication import reserve
from orchestrator.terminal import printable
from tests.cli.made_adapter import make_adapter
from tests.cli.run_here import Run, Said, run_here


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    assert settings.home
    return run_here(monkeypatch, capsys)


@pytest.fixture
def monster(settings: Settings) -> Path:
    return make_adapter(settings.adapters / "monster")


def request(said: Said) -> dict[str, object]:
    assert said.code == 0, said
    found: dict[str, object] = json.loads(said.output)
    return found


@pytest.mark.usefixtures("monster")
def test_an_evaluation_is_a_training_job_with_the_adapter_as_a_channel(run: Run, tmp_path: Path) -> None:
    shutil.copytree(SAMPLE_IMAGES, tmp_path / "real")
    words = ["evaluate", "monster", "--dry-run", "--json"]
    here = request(run(*words, "--reference", str(tmp_path / "real"), "--seeds", "2"))
    assert set(channel_uris(here)) == {"adapter", "prompts", "reference", "base_model", "code"}
    assert here["AlgorithmSpecification"]["ContainerEntrypoint"] == ["python", "-m", "entrypoints.evaluate"]
    there = request(run(*words, "--target", "sagemaker"))["request"]
    assert complaint(there) is None
    assert there["HyperParameters"]["recipe"] == '"evaluate"'
    assert set(channel_uris(there)) == {"adapter", "prompts", "base_model", "code"}


@pytest.mark.usefixtures("monster")
def test_other_settings_prompts_pictures_or_adapters_make_another_job(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("{} at sea\n")
    shutil.copytree(SAMPLE_IMAGES, tmp_path / "real")
    ways: Sequence[Sequence[str]] = (
        (),
        ("--seeds", "3"),
        ("--prompts", str(tmp_path / "prompts.txt")),
        ("--reference", str(tmp_path / "real")),
        ("--weight", "0.5"),
    )
    names = [str(request(run("evaluate", "monster", "--dry-run", "--json", *way))["TrainingJobName"]) for way in ways]
    assert names[0] == request(run("evaluate", "monster", "--dry-run", "--json"))["TrainingJobName"]
    other = make_adapter(settings.adapters / "other" / "monster").rename(tmp_path / "monster")
    (other / "pytorch_lora_weights.safetensors").write_bytes(b"other weights")
    AdapterManifest.read(other).write(other)
    names.append(str(request(run("evaluate", str(other), "--dry-run", "--json"))["TrainingJobName"]))
    assert len(set(names)) == len(ways) + 1
    assert all(name.startswith("monster-evaluation-") for name in names)


def test_a_plan_says_how_many_images_are_drawn_and_by_what(run: Run, monster: Path) -> None:
    said = run("evaluate", "monster", "--dry-run", "--seeds", "2")
    assert said.code == 0
    assert "8 prompts and 8 unrelated prompts, x 2 seeds x 2 models: 64 images" in said.output
    assert not (monster.parents[1] / "jobs").exists()


def damage(folder: Path) -> None:
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"changed")


def empty(folder: Path) -> str:
    folder.mkdir()
    return str(folder)


@pytest.mark.usefixtures("monster")
@pytest.mark.parametrize(
    ("words", "says", "next_step"),
    [
        (("monstre",), 'did you mean "monster"?', "adapters list"),
        (("./none",), "There is no folder", "adapters list"),
        (("monster", "--seeds", "0"), "--seeds", "evaluate --help"),
        (("monster", "--seeds", "17"), "--seeds", "evaluate --help"),
        (("monster", "--weight", "nan"), "--weight", "evaluate --help"),
        (("monster", "--weight", "100"), "--weight", "evaluate --help"),
        (("monster", "--reference", "none"), "There is no folder", "--reference DIR"),
        (("monster", "--prompts", "none.txt"), "cannot be read", "one prompt a line"),
        (("monster", "--dino", "."), "has no config.json", "--dino"),
        (("monster", "--dino", "none"), "There is no folder", "--dino DIR"),
        (("monster", "--scorer", "."), "config.json", "evaluate --help"),
        (("monster", "--base-model", "./none"), "base_model", "--base-model FOLDER"),
        (("monster", "--max-usd", "2"), "--max-usd can only be given for a job on SageMaker", "--target sagemaker"),
        (("monster", "--queue", "--together"), "choose one", "--help"),
    ],
)
def test_what_cannot_be_evaluated_as_asked_is_said_with_the_next_step(
    run: Run,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: Sequence[str],
    says: str,
    next_step: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("evaluate", *words)
    assert said.code != 0
    assert says in said.errors
    assert next_step in said.errors
    assert "Traceback" not in said.errors
    assert not settings.jobs.exists()
    assert not (settings.home / "store").exists()


def test_pictures_that_are_none_are_refused_like_those_of_a_training(
    run: Run, settings: Settings, monster: Path, tmp_path: Path
) -> None:
    assert monster
    nothing = run("evaluate", "monster", "--reference", empty(tmp_path / "empty"))
    assert (nothing.code, "no image" in nothing.errors.lower()) == (3, True), nothing
    shutil.copytree(SAMPLE_IMAGES, tmp_path / "above" / "real")
    above = run("evaluate", "monster", "--reference", str(tmp_path / "above"))
    assert (above.code, f"--reference {tmp_path / 'above' / 'real'}" in above.errors) == (3, True), above
    folder = tmp_path / "broken"
    folder.mkdir()
    Image.new("RGB", (80, 80)).save(folder / "one.png")
    (folder / "two.png").write_bytes((folder / "one.png").read_bytes()[:60])
    broken = run("evaluate", "monster", "--reference", str(folder))
    assert (broken.code, "two.png" in broken.errors) == (3, True), broken
    assert not settings.jobs.exists()


def test_an_adapter_that_was_changed_is_refused(run: Run, settings: Settings, monster: Path) -> None:
    damage(monster)
    said = run("evaluate", "monster")
    assert said.code == 4
    assert "pytorch_lora_weights.safetensors" in said.errors
    assert not settings.jobs.exists()


def test_an_adapter_of_a_base_model_with_other_weights_is_refused_before_anything_is_drawn(
    run: Run, settings: Settings
) -> None:
    make_adapter(settings.adapters / "old", fingerprint="0" * 64)
    said = run("evaluate", "old")
    assert said.code == 2
    assert "other weights" in said.errors
    assert "--base-model FOLDER" in said.errors
    assert not settings.jobs.exists()


def test_an_adapter_that_needs_more_than_a_prompt_is_refused(run: Run, monster: Path) -> None:
    manifest = AdapterManifest.read(monster).model_copy(update={"kind": "of-tomorrow"})
    manifest.write(monster)
    said = run("evaluate", "monster")
    assert said.code == 4
    assert 'the kind "of-tomorrow"' in said.errors
    assert "adapters show monster" in said.errors


def test_a_learned_word_has_no_other_strength(run: Run, monster: Path) -> None:
    manifest = AdapterManifest.read(monster).model_copy(update={"kind": "embedding"})
    manifest.write(monster)
    said = run("evaluate", "monster", "--weight", "0.5")
    assert said.code == 2
    assert "no strength other than 1" in said.errors
    assert "leave --weight out" in said.errors
    assert run("evaluate", "monster", "--weight", "1", "--dry-run").code == 0


def test_an_adapter_whose_base_model_is_gone_says_where_to_name_it(run: Run, settings: Settings) -> None:
    make_adapter(settings.adapters / "lost", base="./sd15")
    said = run("evaluate", "lost")
    assert said.code == 2
    assert '"./sd15"' in said.errors
    assert "--base-model FOLDER" in said.errors


def test_an_adapter_that_was_judged_by_captions_asks_for_prompts_or_warns(run: Run, settings: Settings) -> None:
    folder = make_adapter(settings.adapters / "ink", recipe="lora")
    said = run("evaluate", "ink", "--dry-run")
    assert (said.code, "--prompts FILE" in said.errors) == (2, True), said
    images = (SampleImage(file="after-00-00.png", source="after", prompt="inkstyle, a boat", text="a boat"),)
    (folder / "samples").mkdir()
    (folder / "samples" / "index.json").write_text(SampleIndex(images=images).model_dump_json())
    AdapterManifest.read(folder).write(folder)
    said = run("evaluate", "ink", "--dry-run", "--json")
    assert "captions" in said.errors
    uri = channel_uris(request(said))[PROMPTS_CHANNEL]
    assert not folder_of(uri).exists()  # nothing is stored in a dry run
    assert said.code == 0


def test_a_secret_in_a_prompt_does_not_go_to_an_account(run: Run, monster: Path, tmp_path: Path) -> None:
    assert monster
    file = tmp_path / "prompts.txt"
    file.write_text("{} with AKIAIOSFODNN7EXAMPLE and wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n")
    said = run("evaluate", "monster", "--prompts", str(file), "--target", "sagemaker", "--dry-run")
    assert said.code == 2
    assert "secret" in said.errors
    assert "wJalr" not in said.errors


RESULT = EvaluationResult(
    adapter=EvaluatedAdapter(name="mon\x1bster", sha256="0" * 64, recipe="dreambooth", kind="lora"),
    base_model=BaseModelReference(id="builtin", fingerprint="f", family="sd"),
    prompts=(),
    seeds=(1000,),
    drawn_with=DrawnWith(steps=1, guidance=1, size=64),
    spaces=(Space(name="clip", label="CLIP", sha256="c"),),
    figures=(
        Figure(
            measure="subject_fidelity",
            space="clip",
            images=4,
            adapter=Estimate(value=0.5, low=0.4, high=0.6),
            base=Estimate(value=0.3, low=0.2, high=0.4),
            gap_closed=Estimate(value=0.51, low=0.4, high=0.62),
        ),
    ),
    skipped=(Skipped(what="DINO", why="its weights \x1b are in no package", how="--dino FOLDER"),),
    bundle_sha256="b",
    libraries={},
)


ONCE = "it rests on one image, or on one pair of images"
SINGLE = RESULT.model_copy(
    update={
        "prompts": (AskedPrompt(base="a", adapter="a", text="a"),),
        "unrelated": ("b",),
        "figures": (
            Figure(
                measure="subject_fidelity",
                space="clip",
                images=1,
                adapter=Estimate(value=0.5, no_interval=ONCE),
                base=Estimate(value=0.3, no_interval=ONCE),
            ),
        ),
    }
)


def complete(settings: Settings, name: str = "monster-evaluation-0123456789") -> Path:
    """Write a job that has ended, and its result."""
    output = settings.evaluations / name
    reserve(output, JobFolder(settings.jobs / name))
    output.mkdir(parents=True)
    (output / "contact_sheet.png").write_bytes(b"png")
    RESULT.write(output)
    channel = {"ChannelName": "code", "DataSource": {"S3DataSource": {"S3Uri": output.as_uri()}}}
    values = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"ContainerEntrypoint": ["python"]},
        "HyperParameters": {"recipe": '"evaluate"', "adapter": '"monster"', "seeds": "2"},
        "InputDataConfig": [channel],
        "OutputDataConfig": {"S3OutputPath": output.as_uri()},
        "Tags": [{"Key": "orchestrator:identity", "Value": "0" * 64}],
    }
    job = settings.jobs / name
    job.mkdir(parents=True)
    (job / "request.json").write_text(json.dumps(values))
    state = {"status": "Completed", "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:01:00Z"}
    (job / "state.json").write_text(json.dumps(state))
    return output


def test_a_job_that_measured_is_listed_shown_and_explained(run: Run, settings: Settings) -> None:
    output = complete(settings)
    assert "evaluate seeds=2 adapter=monster" in run("jobs", "list").output
    shown = run("jobs", "show", "monster")
    assert "0.500 [0.400, 0.600]" in shown.output
    assert "0.51 [0.40, 0.62]" in shown.output
    assert "DINO" in shown.output
    assert "\x1b" not in shown.output
    assert printable("\x1b") in shown.output
    assert str(output / "evaluation.json") in shown.output
    as_json = json.loads(run("jobs", "show", "monster", "--json").output)
    assert as_json["evaluation"]["figures"][0]["adapter"]["value"] == 0.5
    assert "complete" in run("jobs", "explain", "monster").output
    assert run("adapters", "list").code == 0


def test_an_interval_that_cannot_be_estimated_is_named_and_counts_are_words(run: Run, settings: Settings) -> None:
    output = complete(settings)
    SINGLE.write(output)
    shown = " ".join(run("jobs", "show", "monster").output.split())
    assert "0.300 [no interval] 0.500 [no interval]" in shown
    assert f"No interval: {ONCE}." in shown
    assert "--seeds N" in shown
    assert "1 prompt x 1 seed" in shown
    assert "1 unrelated prompt," in shown
    as_json = json.loads(run("jobs", "show", "monster", "--json").output)["evaluation"]["figures"][0]["adapter"]
    assert as_json == {"value": 0.5, "low": None, "high": None, "no_interval": ONCE}


@pytest.mark.usefixtures("monster")
def test_a_plan_counts_one_of_each_in_words(run: Run, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("{} at sea\n")
    said = run("evaluate", "monster", "--dry-run", "--seeds", "1", "--prompts", str(tmp_path / "one.txt"))
    assert "1 prompt and 8 unrelated prompts, x 1 seed x 2 models: 18 images" in said.output


def test_a_result_that_lost_a_file_or_cannot_be_read_is_said_so(run: Run, settings: Settings) -> None:
    output = complete(settings)
    (output / "contact_sheet.png").unlink()
    lost = run("jobs", "explain", "monster")
    assert "contact_sheet.png" in lost.output
    assert "jobs remove" in lost.output
    (output / "evaluation.json").write_text("{")
    assert "cannot be read" in run("jobs", "explain", "monster").output
    assert ProcessTarget(settings).names()


@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_a_job_left_goes_with_it_and_the_measured_adapter_stays(
    run: Run, settings: Settings, monster: Path, is_damaged: bool
) -> None:
    output = complete(settings)
    other = complete(settings, "other-evaluation-0123456789")
    if is_damaged:
        (settings.jobs / output.name / "request.json").write_text("{")
    said = run("jobs", "remove", output.name)
    assert said.code == 0
    assert ("and its evaluation" in said.output) != is_damaged
    assert not output.exists()
    assert not list(settings.evaluations.rglob(f"*{output.name}*"))  # its claim to the folder neither
    assert other.is_dir()
    assert monster.is_dir()


def test_an_evaluation_has_no_adapter_to_delete(run: Run, settings: Settings, monster: Path) -> None:
    output = complete(settings)
    said = run("jobs", "remove", output.name, "--adapter", "--yes")
    assert said.code == 2
    assert "has made no adapter" in said.errors
    assert output.is_dir()
    assert monster.is_dir()


def test_prompts_come_back_as_they_were_written(tmp_path: Path) -> None:
    prompts = EvaluationPrompts(prompts=(("a", "b", "c"),), unrelated=("d",))  # type: ignore[arg-type]
    prompts.write(tmp_path / "prompts")
    assert EvaluationPrompts.read(tmp_path / "prompts") == prompts
