"""A finished adapter on this machine: pulled, loaded by plain diffusers, and drawn with, as the real commands do it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.adapters.registry import Registry
from orchestrator.cli.drawing import draw_images
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.evaluation_result import EvaluationResult
from orchestrator.contract.figures import EVALUATED
from orchestrator.contract.samples import parse_index
from orchestrator.errors import OrchestratorError
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.storage import S3Store
from tests.storage.conftest import BUCKET, aws, store, wire

__all__ = ["aws", "store", "wire"]  # fixtures of a bucket on moto
SHORT = ["steps=3", "evaluation_prompts=1", "evaluation_seeds=2", "inference_steps=3"]
PROMPT = "a photo of sks monster"
Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one real adapter, "dog"; each test works on a copy."""
    folder = tmp_path_factory.mktemp("draw") / "home"
    words = ["submit", "dreambooth", "--name", "dog"]
    for setting in SHORT:
        words += ["-s", setting]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRATOR_HOME", str(folder))
        subprocess.run([sys.executable, "-m", "orchestrator", *words], check=True, capture_output=True)
    return folder


@pytest.fixture
def here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home with the adapter, and an empty folder to work in."""
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(home))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def call(here: Path) -> Call:
    def call(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "orchestrator", *words]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    return call


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def differ_by(one: Path, other: Path) -> int:
    """Return the largest difference of two images, in levels of 255."""
    return max(abs(a - b) for a, b in zip(pixels(one), pixels(other), strict=True))


def test_the_same_seed_and_prompt_draw_the_image_that_the_job_drew(call: Call, home: Path, here: Path) -> None:
    samples = home / "adapters" / "dog" / "samples"
    index = parse_index((samples / "index.json").read_bytes())
    first, second = [image for image in index.images if image.source == "after"]
    outcome = call("adapters", "draw", "dog", first.prompt, "--seed", str(first.seed), "-n", "2", "-o", "out.png")
    assert outcome.returncode == 0, outcome.stderr
    assert "out-1.png" in outcome.stdout
    assert "Warning" not in outcome.stderr  # the prompt has the word
    assert differ_by(here / "out-1.png", samples / first.file) <= 1  # the job has added the adapter to the weights
    assert differ_by(here / "out-2.png", samples / second.file) <= 1


def test_an_adapter_made_here_is_pulled_and_its_program_runs_as_it_is_printed(call: Call, here: Path) -> None:
    pulled = call("adapters", "pull", "dog")
    assert pulled.returncode == 0, pulled.stderr
    assert AdapterManifest.read(here / "dog").damaged_files(here / "dog") == []
    _, _, program = pulled.stdout.partition("\n\n")
    program = program.partition("\n\n")[2]
    job = json.loads(call("jobs", "list", "--json").stdout)[0]["name"]
    shown = call("jobs", "show", job).stdout
    assert shown.partition("in Python:\n\n")[2].splitlines()[0] == "import torch"
    assert json.loads(call("jobs", "show", job, "--json").stdout)["snippet"] in shown
    assert "load_lora_weights" in call("adapters", "show", "dog").stdout
    ran = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    drawn = call("adapters", "draw", "./dog", PROMPT, "-o", "drawn.png", "--json")
    assert json.loads(drawn.stdout)["images"] == [{"file": str(here / "drawn.png"), "seed": 0}], drawn.stderr
    assert pixels(here / "drawn.png") == pixels(here / "image.png")


def test_an_adapter_of_the_bucket_is_fetched_to_draw_with_and_leaves_nothing_but_the_image(
    store: S3Store, home: Path, here: Path, aws: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = home / "adapters" / "dog"
    for file in adapter.rglob("*"):
        if file.is_file():
            key = f"adapters/cloud/cloud-0123456789/output/model/{file.relative_to(adapter).as_posix()}"
            aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
    given = {"prompt": "a monster", "size": 32, "steps": 1}
    draw_images("cloud", Registry([store]), given, "out.d/", force=False, as_json=False)
    assert [path.relative_to(here).as_posix() for path in here.rglob("*")] == ["out.d", "out.d/cloud.png"]
    assert 'lacks "sks"' in capsys.readouterr().err


def test_a_base_model_in_a_folder_is_found_by_the_adapters_job_and_never_in_the_folder_one_is_in(
    call: Call, home: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(home, tmp_path / "own")
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(own))
    file = own / "adapters" / "dog" / "adapter.json"
    file.write_text(file.read_text().replace('"id": "builtin"', '"id": "./sd15"'))  # as of a model in a folder
    (here / "sd15").mkdir()
    job = json.loads(call("jobs", "list", "--json").stdout)[0]["name"]
    request = own / "jobs" / job / "request.json"
    request.write_text(request.read_text().replace(str(home), str(own)))
    for words in (("adapters", "show", "dog"), ("jobs", "show", job), ("adapters", "pull", "dog")):
        assert f"from_pretrained({str(BUILTIN_MODEL)!r}, " in call(*words).stdout
    drawn = call("adapters", "draw", "dog", PROMPT, "--steps", "1")
    assert drawn.returncode == 0, drawn.stderr
    lost = call("adapters", "draw", "./dog", PROMPT, "-o", "lost.png")
    assert "where that is now is not known" in lost.stderr
    assert "--base-model FOLDER" in lost.stderr
    found = call("adapters", "draw", "./dog", PROMPT, "--base-model", str(BUILTIN_MODEL), "-o", "found.png")
    assert found.returncode == 0, found.stderr
    request.write_text(request.read_text().replace(str(BUILTIN_MODEL), str(own / "moved")))
    for words in (("adapters", "show", "dog"), ("adapters", "draw", "dog", PROMPT)):
        said = call(*words)
        assert f"{own / 'moved'}" in said.stdout + said.stderr
        assert "./sd15" not in said.stdout + said.stderr
    shutil.rmtree(own / "jobs" / job)
    assert 'model = "FOLDER"  # write where' in call("adapters", "show", "dog").stdout


def test_an_adapter_is_evaluated_as_a_job_and_the_same_command_finds_what_it_measured(
    call: Call, home: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(home, tmp_path / "own")
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(own))
    (here / "prompts.txt").write_text("a photo of {} on a red background\n")
    words = ("evaluate", "dog", "--prompts", "prompts.txt", "--seeds", "2")
    said = call(*words)
    assert said.returncode == 0, said.stderr
    assert "REAL PHOTOS" in said.stdout
    assert "Skipped:" in said.stdout
    again = call(*words, "--json")
    value = json.loads(again.stdout)
    assert (value["status"], "was submitted before" in again.stderr) == ("Completed", True)
    folder = own / "evaluations" / value["name"]
    result = EvaluationResult.read(folder)
    assert value["evaluation"] == result.model_dump(mode="json")
    assert result.damaged_files(folder) == []
    assert {figure.measure for figure in result.figures} == {measure.name for measure in EVALUATED}
    assert Path(value["report"]).is_file()
    # Two models, two seeds, one prompt and eight unrelated ones; real pictures come from the adapter.
    index = parse_index((folder / "samples" / "index.json").read_bytes())
    assert len([image for image in index.images if image.source != "real"]) == 2 * 2 * 9
    assert result.real_pictures > 1
    assert [one["name"] for one in json.loads(call("adapters", "list", "--json").stdout)] == ["dog"]


def test_a_batch_is_drawn_by_two_processes_and_has_the_images_that_drawing_alone_has(
    call: Call, home: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(home, tmp_path / "own")
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(own))
    lines: list[dict[str, Any]] = [
        {"prompt": PROMPT, "n": 2, "id": "with"},
        {"prompt": PROMPT, "n": 2, "id": "without", "adapters": []},
    ]
    (here / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ("generate", "--batch", "prompts.jsonl", "--adapter", "dog", "--seed", "4", "--steps", "3", "-o", "out")
    said = call(*words, "--instances", "2")
    assert said.returncode == 0, said.stderr
    assert "4 images" in said.stderr  # of both
    assert sorted(path.name for path in (here / "out").glob("*.png")) == [
        "with-1.png",
        "with-2.png",
        "without-1.png",
        "without-2.png",
    ]
    alone = call("adapters", "draw", "dog", PROMPT, "--seed", "4", "-n", "2", "--steps", "3", "-o", "alone.png")
    assert alone.returncode == 0, alone.stderr
    for number in (1, 2):
        assert (here / "out" / f"with-{number}.png").read_bytes() == (here / f"alone-{number}.png").read_bytes()
        assert pixels(here / "out" / f"with-{number}.png") != pixels(here / "out" / f"without-{number}.png")
    (here / "out" / "with-1.png").unlink()
    again = call(*words, "--json")
    assert "was submitted before" in again.stderr
    assert {image["name"] for image in json.loads(again.stdout)["images"]} >= {"with-1", "without-2"}
    assert (here / "out" / "with-1.png").read_bytes() == (here / "alone-1.png").read_bytes()


REFUSED = [
    (("no-such",), "There is no adapter"),
    (("./no-such",), "There is no folder"),
    (("~no-such-user/dog",), "~no-such-user/dog: "),
    (("./loop",), "/loop: "),
    (("dog", "-o", "~no-such-user/x.png"), "~no-such-user/x.png: "),
    (("dog", "-o", "~no-such-user"), "~no-such-user: "),
    (("dog", "-o", "loop/x.png"), "loop/x.png: "),
    (("dog", "-o", "out.jpg"), "is not a PNG file"),
    (("dog", "-o", "taken.png"), "taken.png exists"),
    (("dog", "-o", "taken-folder"), "dog.png exists"),
    (("dog", "-n", "0"), "-n: "),
    (("dog", "-n", "1000"), "-n: "),
    (("dog", "--seed", "-1"), "--seed: "),
    (("dog", "--steps", "0"), "--steps: "),
    (("dog", "--guidance", "nan"), "--guidance: "),
    (("dog", "--size", "65"), "--size: "),
    (("dog", "--height", "65"), "--height: "),
    (("dog", "--weight", "inf"), "--weight: "),
    (("dog", "--seed", "4294967295", "-n", "2"), "the last image would have the seed 4294967296"),
    (("dog", "-o", "/proc/1/x.png"), "No image can be written into /proc/1"),
    (("dog", "--base-model", "./nowhere"), "base model of the adapter cannot be used"),
]


@pytest.mark.parametrize(("words", "why"), REFUSED, ids=str)
def test_what_cannot_be_drawn_is_refused_before_anything_is_loaded(
    here: Path, words: tuple[str, ...], why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.__main__ import main

    (here / "loop").symlink_to("loop")
    (here / "taken.png").write_bytes(b"mine")
    (here / "taken-folder").mkdir()
    (here / "taken-folder" / "dog.png").write_bytes(b"mine")
    adapter, *options = words
    monkeypatch.setattr(sys, "argv", ["orchestrator", "adapters", "draw", adapter, PROMPT, *options])
    assert main() != 0
    printed = capsys.readouterr()
    assert why in printed.err
    assert printed.err.count("Next: ") == 1
    assert (here / "taken.png").read_bytes() == b"mine"


@pytest.mark.parametrize("folder", ["~no-such-user", "~no-such-user/dog", "loop"])
def test_a_folder_to_pull_to_that_cannot_be_one_is_refused(
    here: Path, folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.__main__ import main

    (here / "loop").symlink_to("loop")
    monkeypatch.setattr(sys, "argv", ["orchestrator", "adapters", "pull", "dog", "--to", folder])
    assert main() != 0
    printed = capsys.readouterr()
    assert f"{folder}: " in printed.err
    assert printed.err.count("Next: ") == 1


def test_an_adapter_is_drawn_with_only_when_it_is_whole_and_the_base_model_is_its_own(home: Path, here: Path) -> None:
    adapter = shutil.copytree(home / "adapters" / "dog", here / "dog")
    other = shutil.copytree(BUILTIN_MODEL, here / "other")
    weights = other / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    given: dict[str, Any] = {"prompt": PROMPT, "steps": 1}

    def refusal(**more: Any) -> OrchestratorError:
        with pytest.raises(OrchestratorError) as raised:
            draw_images("./dog", Registry([]), {**given, **more}, "x.png", force=False, as_json=True)
        assert not (here / "x.png").exists()
        assert raised.value.next_step[0].islower()  # as every next step of the client
        assert not raised.value.next_step.endswith(".")
        return raised.value

    long = f"a photo of {'very ' * 40}sks monster"
    assert "is cut off" in refusal(prompt=long).message
    error = refusal(base_model=str(other))
    assert "has other weights" in error.message
    assert "--base-model" in error.next_step
    changed = bytearray((adapter / "pytorch_lora_weights.safetensors").read_bytes())
    changed[-1] ^= 1
    (adapter / "pytorch_lora_weights.safetensors").write_bytes(changed)
    assert "pytorch_lora_weights.safetensors" in refusal().message
    (adapter / "pytorch_lora_weights.safetensors").unlink()
    assert "pytorch_lora_weights.safetensors is missing" in refusal().message


def test_a_control_beside_an_adapter_steers_what_it_draws(call: Call, here: Path) -> None:
    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel

    torch.manual_seed(0)
    halvings = len(json.loads((BUILTIN_MODEL / "vae" / "config.json").read_text())["block_out_channels"]) - 1
    denoiser = UNet2DConditionModel.from_pretrained(BUILTIN_MODEL / "unet")
    widths = [4] * (halvings + 1)
    network = ControlNetModel.from_unet(denoiser, conditioning_embedding_out_channels=widths)
    for name, weight in network.named_parameters():
        if name.startswith("controlnet_"):  # zeros until it is trained
            weight.data = torch.randn_like(weight) * 0.2
    network.save_pretrained(here / "net")
    Image.linear_gradient("L").save(here / "p.png")
    plain = call("adapters", "draw", "dog", PROMPT, "--steps", "2", "-o", "plain.png")
    assert plain.returncode == 0, plain.stderr
    words = ("--steps", "2", "--control", "sketch=p.png:0.8,net=./net,tau=0.9,end=0.5", "-o", "steered.png", "--json")
    steered = call("adapters", "draw", "dog", PROMPT, *words)
    assert steered.returncode == 0, steered.stderr
    assert json.loads(steered.stdout)["controls"] == [
        {
            "kind": "sketch",
            "network": "./net",
            "is_map": False,
            "settings": {"tau": 0.9},
            "scale": 0.8,
            "start": 0,
            "end": 0.5,
        }
    ]
    assert pixels(here / "steered.png") != pixels(here / "plain.png")
    unfit = call("adapters", "draw", "dog", PROMPT, "--control", "openpose=p.png,net=./net")
    assert unfit.stderr.count("Next: ") == 1
    assert "no folder with its weights was named" in unfit.stderr
