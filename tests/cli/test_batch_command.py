"""What a person can get wrong about a batch of images: one message with the lines, and nothing is started."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sagemaker_simulator import complaint

from orchestrator.cli import asked_batch
from orchestrator.contract import batch as contract
from orchestrator.contract.adapter import AdapterManifest, BaseModelReference
from orchestrator.contract.batch import ADAPTERS_CHANNEL, SAMPLES_CHANNEL, BatchSamples
from orchestrator.contract.batch_result import DrawnImage, HostIndex, Sample
from orchestrator.contract.digest import hash_file
from orchestrator.requests import channel_uris
from orchestrator.settings import Settings
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.local.publication import reserve
from tests.cli.made_adapter import make_adapter
from tests.cli.run_here import Run, Said, run_here

PROMPT = "a photo of a sks monster"
Write = Callable[..., str]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    assert settings.home
    return run_here(monkeypatch, capsys)


@pytest.fixture
def monster(settings: Settings) -> Path:
    return make_adapter(settings.adapters / "monster")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of lines, each an object or a text as it is, and return its path."""

    def write(*lines: Mapping[str, Any] | str, name: str = "prompts.jsonl") -> str:
        file = tmp_path / name
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        file.write_text("\n".join(texts))
        return str(file)

    return write


def request(said: Said) -> dict[str, Any]:
    assert said.code == 0, said
    found: dict[str, Any] = json.loads(said.output)
    return found


@pytest.fixture
def samples(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sequence[Sample]]:
    """Return the samples of a command's batch, which it would have stored."""
    asked: list[Sequence[Sample]] = []
    prepare = asked_batch.prepare_batch

    def noted(batch: Any, *rest: Any) -> Any:
        asked.append(batch.samples)
        return prepare(batch, *rest)

    monkeypatch.setattr(asked_batch, "prepare_batch", noted)

    def of(*words: str) -> Sequence[Sample]:
        said = run("generate", "--batch", *words, "--dry-run")
        assert said.code == 0, said
        return asked[-1]

    return of


@pytest.mark.usefixtures("monster")
def test_a_batch_is_a_job_of_as_many_instances_or_processes(run: Run, write: Write) -> None:
    words = [
        "generate",
        "--batch",
        write({"prompt": PROMPT}),
        "--adapter",
        "monster",
        "--instances",
        "3",
        "--dry-run",
        "--json",
    ]
    here = request(run(*words))
    assert set(channel_uris(here)) == {ADAPTERS_CHANNEL, SAMPLES_CHANNEL, "base_model", "code"}
    assert here["AlgorithmSpecification"]["ContainerEntrypoint"] == ["python", "-m", "entrypoints.draw_batch"]
    assert here["ResourceConfig"] == {"InstanceCount": 3}
    there = request(run(*words, "--target", "sagemaker"))["request"]
    assert complaint(there) is None
    assert there["ResourceConfig"]["InstanceCount"] == 3
    assert there["HyperParameters"]["recipe"] == '"generate"'
    assert there["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    one = request(run(*words[:-3], "1", "--dry-run", "--json"))
    assert one["TrainingJobName"] == here["TrainingJobName"] == there["TrainingJobName"]  # it goes on with another


@pytest.mark.usefixtures("monster")
def test_other_prompts_settings_or_adapters_make_another_job(run: Run, settings: Settings, write: Write) -> None:
    make_adapter(settings.adapters / "ink", recipe="lora")
    lines: Sequence[Mapping[str, Any]] = (
        {"prompt": PROMPT},
        {"prompt": f"{PROMPT} at sea"},
        {"prompt": PROMPT, "seed": 7},
        {"prompt": PROMPT, "negative_prompt": "red"},
        {"prompt": PROMPT, "adapters": ["monster:0.5"]},
        {"prompt": PROMPT, "adapters": ["monster", "ink"]},
    )
    common = ("--adapter", "monster", "--dry-run", "--json")
    names = [request(run("generate", "--batch", write(line), *common))["TrainingJobName"] for line in lines]
    names.append(request(run("generate", "--batch", write(lines[0]), *common, "--steps", "3"))["TrainingJobName"])
    assert len(set(names)) == len(lines) + 1
    assert all(name.startswith("prompts-images-") for name in names)
    assert request(run("generate", "--batch", write("", lines[0], ""), *common))["TrainingJobName"] not in names[1:]


def test_a_line_says_what_the_command_and_its_adapter_do_not(
    samples: Callable[..., Sequence[Sample]], settings: Settings, write: Write
) -> None:
    make_adapter(settings.adapters / "ink", recipe="lora")
    folder = make_adapter(settings.adapters / "monster")
    manifest = AdapterManifest.read(folder)
    drawn = {**manifest.config, "inference_steps": 9, "guidance_scale": 3.0, "resolution": 96, "seed": 5}
    manifest.model_copy(update={"config": drawn}).write(folder)
    file = write(
        "# what is drawn",
        {"prompt": "A SKS monster", "n": 2},
        {"prompt": PROMPT, "seeds": [8, 3], "steps": 4, "height": 128, "id": "two", "negative_prompt": None},
        {"prompt": "a boat", "adapters": [{"name": "ink", "weight": 0.5}, "monster:0.25"], "size": 64},
        {"prompt": "a cat", "adapters": [], "scheduler": "euler", "guidance": 1},
    )
    found = samples(file, "--adapter", "monster:0.8", "--negative", "red")
    told = [(one.name, one.prompt, one.seed, one.steps, one.guidance, one.width, one.height) for one in found]
    assert told == [
        ("00002-1", "A sks monster", 0, 9, 3.0, 96, 96),
        ("00002-2", "A sks monster", 1, 9, 3.0, 96, 96),
        ("two-1", PROMPT, 8, 4, 3.0, 96, 128),
        ("two-2", PROMPT, 3, 4, 3.0, 96, 128),
        ("00004", "a boat", 0, 12, 2.0, 64, 64),
        ("00005", "a cat", 0, 12, 1.0, 64, 64),
    ]
    used = [[(one.name, one.weight) for one in sample.adapters] for sample in found]
    assert used == [[("monster", 0.8)]] * 4 + [[("ink", 0.5), ("monster", 0.25)], []]
    assert {one.negative_prompt for one in found} == {"red"}
    assert found[-1].scheduler == "euler"
    (chosen,) = samples(write({"prompt": PROMPT}), "--adapter", "monster", "--steps", "2", "--size", "32")
    assert (chosen.steps, chosen.width, chosen.height, chosen.guidance) == (2, 32, 32, 3.0)
    lines = write({"prompt": PROMPT}, {"prompt": PROMPT, "size": 32})
    found = samples(lines, "--adapter", "monster", "--width", "64", "--height", "32")
    assert [(one.width, one.height) for one in found] == [(64, 32), (32, 32)]


@pytest.mark.usefixtures("monster")
def test_a_text_file_has_a_prompt_a_line_and_a_plan_says_what_is_drawn(run: Run, write: Write) -> None:
    file = write(PROMPT, "", "# no prompt", f"{PROMPT} at sea\r", name="some words.txt")
    said = run("generate", "--batch", file, "--adapter", "monster", "-n", "2", "--instances", "2", "--dry-run")
    assert said.code == 0, said
    assert "4 images of 2 prompts" in said.output
    assert "some-words-images-" in said.output
    there = run("generate", "--batch", file, "--adapter", "monster", "-n", "2", "--target", "sagemaker", "--dry-run")
    assert "4 images of 2 prompts" in there.errors
    assert "expected" in there.output
    assert "$" in there.output


BAD: Sequence[tuple[Sequence[Mapping[str, Any] | str], str]] = (
    (["{"], "line 1: is no JSON"),
    (["[1]"], "line 1: is no JSON object"),
    (["[" * 100_000], "nested too deeply"),
    (['{"prompt": "a", "prompt": "b"}'], 'line 1: says "prompt" twice'),
    ([{"prompt": PROMPT}, {"seed": 1}], "line 2, prompt: is empty"),
    ([{"prompt": 3}], "line 1, prompt: should be a text"),
    ([{"prompt": "a" * 3000}], "line 1, prompt: "),
    ([{"prompt": "a\x1bb"}], "line 1.prompt: holds a control character"),
    ([{"prompt": "a", "stepz": 3}], 'line 1: there is no field "stepz" (did you mean "steps"?)'),
    ([{"prompt": "a", "steps": 0}], "line 1, steps: "),
    ([{"prompt": "a", "steps": "many"}], "line 1, steps: should be a whole number"),
    ([{"prompt": "a", "size": 65}], "line 1, size: "),
    ([{"prompt": "a", "size": 100_000}], "line 1, size: "),
    (['{"prompt": "a", "guidance": NaN}'], "line 1, guidance: "),
    ([{"prompt": "a", "scheduler": "eular"}], "line 1, scheduler: "),
    ([{"prompt": "a", "seed": -1}], "line 1: a seed should be"),
    ([{"prompt": "a", "seed": True}], "line 1: a seed should be"),
    ([{"prompt": "a", "seed": 2**32 - 1, "n": 2}], "line 1: a seed should be"),
    ([{"prompt": "a", "seeds": []}], "line 1: seeds should be a list"),
    ([{"prompt": "a", "seeds": [1], "n": 2}], "line 1: says seeds, and seed or n beside it"),
    ([{"prompt": "a", "seeds": [4, 4]}], "line 1: asks for an image of line 1 again"),
    ([{"prompt": "a", "n": 10**12}], "line 1: n should be from 1 to"),
    ([{"prompt": "a", "n": 1.5}], "line 1: n should be"),
    ([{"prompt": "a"}, "", {"prompt": "a"}], "line 3: asks for an image of line 1 again"),
    ([{"prompt": "a", "id": "x"}, {"prompt": "b", "id": "X"}], 'line 2: the id "X" is that of line 1 too'),
    ([{"prompt": "a", "id": "../x"}], "line 1: id should be"),
    ([{"prompt": "a", "id": 7}], "line 1: id should be"),
    ([{"prompt": "a", "adapters": ["monstre"]}], 'line 1: There is no adapter "monstre"; did you mean "monster"?'),
    ([{"prompt": "a", "adapters": ["./none"]}], "line 1: There is no folder"),
    ([{"prompt": "a", "adapters": "monster"}], "line 1, adapters: should be a list"),
    ([{"prompt": "a", "adapters": ["monster:40"]}], "line 1, adapters: weight"),
    ([{"prompt": "a", "embeddings": "word"}], "line 1, adapters: embeddings should be a list of names"),
    ([{"prompt": "a", "embeddings": ["wrd"]}], 'line 1: There is no adapter "wrd"'),
    ([{"prompt": "a", "negative": "b"}], 'there is no field "negative" (did you mean "negative_prompt"?)'),
    ([{"prompt": "a", "adapters": ["monster:nan"]}], "line 1, adapters: weight"),
    ([{"prompt": "a", "adapters": [{"nam": "monster"}]}], "line 1, adapters: name: is missing"),
    ([{"prompt": "a", "adapters": ["monster"] * 9}], "line 1, adapters: "),
    ([{"prompt": "a", "adapters": ["monster", "monster:0.5"]}], "the same adapter is named twice"),
    ([{"prompt": "a", "adapters": ["control"]}], 'line 1, adapters: "control" is a ControlNet'),
    ([{"prompt": "a", "adapters": ["new"]}], 'line 1, adapters: "new" is of the kind "of-tomorrow"'),
    ([{"prompt": "a", "adapters": ["whole", "monster"]}], '"whole" is of the kind "peft"'),
    ([{"prompt": "a", "adapters": ["other"]}, {"prompt": "b", "adapters": ["monster"]}], "which has other weights"),
    ([{"prompt": "a", "adapters": ["broken"]}], "line 1: The adapter in"),
    ([{"prompt": "word " * 90 + "sks", "adapters": ["monster"]}], '"sks" is cut off with'),
    ([], "holds no prompt"),
)


@pytest.fixture
def zoo(settings: Settings, monster: Path) -> Path:
    """Adapters with which something is wrong."""
    for name, fields in {"control": {"kind": "controlnet"}, "new": {"kind": "of-tomorrow"}}.items():
        folder = make_adapter(settings.adapters / name)
        AdapterManifest.read(folder).model_copy(update=fields).write(folder)
    folder = make_adapter(settings.adapters / "whole")
    (folder / "more").write_text("another file")
    AdapterManifest.read(folder).model_copy(update={"kind": "peft"}).write(folder)
    make_adapter(settings.adapters / "other", fingerprint="0" * 64)
    broken = make_adapter(settings.adapters / "broken")
    (broken / "pytorch_lora_weights.safetensors").write_bytes(b"changed")
    return monster


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize(("lines", "says"), BAD, ids=[says[:40] for _, says in BAD])
def test_what_cannot_be_drawn_is_said_with_its_line(
    run: Run, settings: Settings, write: Write, lines: Sequence[Mapping[str, Any] | str], says: str
) -> None:
    said = run("generate", "--batch", write(*lines))
    assert said.code == 2, said
    assert says in said.errors
    assert "Nothing was started" in said.errors or "nothing was started" in said.errors
    assert "Traceback" not in said.errors
    assert "Report this" not in said.errors
    assert not settings.jobs.exists()
    assert not settings.store.exists()


@pytest.mark.usefixtures("zoo")
def test_all_that_is_wrong_is_said_at_once_and_not_without_end(run: Run, write: Write) -> None:
    said = run(
        "generate", "--batch", write({"prompt": "a", "steps": 0}, {"prompt": "", "adapters": ["none"]}, {"promt": "a"})
    )
    for text in ("line 1, steps", "line 2, prompt", 'line 2: There is no adapter "none"', 'no field "promt"'):
        assert text in said.errors
    many = run("generate", "--batch", write(*({"prompt": str(number), "steps": 0} for number in range(300))))
    assert many.errors.count("steps:") == 20
    assert "280 more problems" in many.errors


WRONG: Sequence[tuple[Sequence[str], str, str]] = (
    (("--steps", "0"), "--steps: ", "generate --help"),
    (("--seed", "-1"), "a seed should be", "generate --help"),
    (("-n", "0"), "n should be", "generate --help"),
    (("--size", "65"), "--size: ", "generate --help"),
    (("--scheduler", "none"), "--scheduler: ", "generate --help"),
    (("--adapter", "none"), 'There is no adapter "none"', ""),
    (("--instances", "0"), "--instances", "generate --help"),
    (("--instances", "5000"), "5000 processes on this machine", "--target sagemaker"),
    (("--target", "sagemaker", "--instances", "5000"), "--instances", "generate --help"),
    (("--base-model", "./none"), "base_model", "generate --help"),
    (("--max-usd", "2"), "--max-usd can only be given for a job on SageMaker", "--target sagemaker"),
    (("--queue", "--together"), "choose one", "--help"),
    (("-o", "prompts.jsonl"), "is a file", "-o DIR"),
    (("-o", "."), "holds something else", "-o DIR"),
)


@pytest.mark.parametrize(("words", "says", "next_step"), WRONG, ids=[" ".join(words) for words, _, _ in WRONG])
def test_options_that_do_not_fit_are_said_with_the_next_step(
    run: Run,
    settings: Settings,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    words: Sequence[str],
    says: str,
    next_step: str,
) -> None:
    file = Path(write({"prompt": "a cat"}))
    monkeypatch.chdir(file.parent)
    said = run("generate", "--batch", str(file), *words)
    assert said.code != 0
    assert says in said.errors
    assert next_step in said.errors
    assert "Traceback" not in said.errors
    assert not settings.jobs.exists()


def test_a_file_that_is_none_or_too_large_is_refused(
    run: Run, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "nul.txt").write_bytes(b"a\0b")
    for name, says in {
        "none": "cannot be read",
        ".": "is a folder",
        "latin": "no text in UTF-8",
        "nul.txt": "NUL",
    }.items():
        said = run("generate", "--batch", str(tmp_path / name))
        assert (said.code, says in said.errors) == (2, True), said
    monkeypatch.setattr("orchestrator.specs.batch_line.MOST_IMAGES", 5)
    said = run("generate", "--batch", write({"prompt": "a", "n": 3}, {"prompt": "b", "n": 3}, {"prompt": "c"}))
    assert (said.code, "line 2: more than 5 images" in said.errors, "split the file" in said.errors) == (2, True, True)
    monkeypatch.setattr("orchestrator.specs.batch_file.MOST_IMAGES", 2)
    said = run("generate", "--batch", write({"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}))
    assert (said.code, "has 3 lines" in said.errors, "split it" in said.errors) == (2, True, True)
    assert contract.MOST_IMAGES >= 50_000


@pytest.mark.usefixtures("monster")
def test_prompts_that_show_little_are_warned_of_by_their_lines(run: Run, write: Write) -> None:
    long = f"{PROMPT} {'word ' * 90}"
    said = run("generate", "--batch", write({"prompt": long}, {"prompt": "a cat"}), "--adapter", "monster", "--dry-run")
    assert said.code == 0, said
    assert "line 1: is 277 tokens long, and the text encoder reads 30" in said.errors
    assert 'line 2: the prompt lacks the word that shows what "monster" has learned' in said.errors


@pytest.mark.usefixtures("monster")
def test_a_secret_in_a_line_does_not_go_to_an_account(run: Run, write: Write) -> None:
    keys = "AKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    file = write(
        {"prompt": PROMPT}, {"prompt": PROMPT, "negative_prompt": f"{'red ' * 90}{keys}"}
    )  # nor into a warning
    said = run("generate", "--batch", file, "--adapter", "monster", "--target", "sagemaker", "--dry-run")
    assert said.code == 2
    assert "line 2.negative_prompt: looks like" in said.errors
    assert "wJalr" not in said.errors


Complete = Callable[..., Path]


@pytest.fixture
def complete(run: Run, settings: Settings, write: Write) -> Complete:
    """Write the job of two prompts as it is when it has ended, drawn by so many hosts, and return what it left."""

    def complete(hosts: int = 1) -> Path:
        words = (
            "generate",
            "--batch",
            write({"prompt": "a cat"}, {"prompt": "a dog", "id": "dog"}),
            "--dry-run",
            "--json",
        )
        asked = request(run(*words))
        name = asked["TrainingJobName"]
        output = settings.images / name
        reserve(output, JobFolder(settings.jobs / name))
        (output / "images").mkdir(parents=True)
        reference = BaseModelReference(id="builtin", fingerprint="f", family="sd")
        samples = []
        for prompt, called in (("a cat", "00001"), ("a dog", "dog")):
            fields = {"prompt": prompt, "seed": 0, "steps": 12, "guidance": 4, "width": 64, "height": 64}
            samples.append(Sample.of("tiny", fields, called))
        for host in range(hosts):
            images = []
            for sample in samples[host::hosts]:
                (output / sample.file).write_text(sample.prompt)
                images.append(DrawnImage(**sample.model_dump(), digest=hash_file(output / sample.file)))
            HostIndex(
                host=host,
                hosts=hosts,
                total=2,
                samples_sha256=BatchSamples(samples=tuple(samples)).sha256,
                base_model=reference,
                libraries={},
                images=tuple(images),
            ).write(output)
        job = settings.jobs / name
        job.mkdir(parents=True)
        (job / "request.json").write_text(json.dumps(asked))
        state = {"status": "Completed", "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:01:00Z"}
        (job / "state.json").write_text(json.dumps(state))
        return output

    return complete


@pytest.mark.parametrize("hosts", [1, 2])
def test_images_are_collected_verified_and_not_twice(run: Run, complete: Complete, tmp_path: Path, hosts: int) -> None:
    complete(hosts)
    file, folder = str(tmp_path / "prompts.jsonl"), tmp_path / "out"
    words = ("generate", "--batch", file, "-o", str(folder))
    said = run(*words)
    assert said.code == 0, said
    assert sorted(path.name for path in folder.iterdir()) == ["00001.png", "dog.png", "index.json"]
    assert ((folder / "00001.png").read_text(), (folder / "dog.png").read_text()) == ("a cat", "a dog")
    index = json.loads((folder / "index.json").read_text())
    assert [(image["file"], image["prompt"]) for image in index["images"]] == [
        ("00001.png", "a cat"),
        ("dog.png", "a dog"),
    ]
    assert index["images"][0]["sha256"] == hash_file(folder / "00001.png").sha256

    (folder / "dog.png").write_text("changed")
    kept = (folder / "00001.png").stat().st_mtime_ns
    assert run(*words).code == 0
    assert (folder / "dog.png").read_text() == "a dog"
    assert (folder / "00001.png").stat().st_mtime_ns == kept


def test_images_that_were_changed_or_lost_are_not_collected(run: Run, complete: Complete, tmp_path: Path) -> None:
    output = complete(2)
    words = ("generate", "--batch", str(tmp_path / "prompts.jsonl"), "-o", str(tmp_path / "out"))
    changed = next(path for path in (output / "images").iterdir() if path.read_text() == "a dog")
    changed.write_text("a cow")  # of the same size
    said = run(*words)
    assert said.code != 0
    assert changed.name in said.errors
    assert not (tmp_path / "out" / "dog.png").exists()
    assert json.loads((tmp_path / "out" / "index.json").read_text())["images"] == []
    (output / "index-2-of-2.json").rename(output / "away")
    said = run(*words)
    assert said.code != 0
    assert "index-2-of-2.json is missing" in said.errors
    assert "jobs remove" in said.errors
    assert "index-2-of-2.json is missing" in run("jobs", "show", output.name).output


def test_a_batch_is_listed_shown_explained_and_removed_like_any_job(
    run: Run, settings: Settings, complete: Complete, monster: Path
) -> None:
    output = complete()
    assert "generate images=2" in run("jobs", "list").output
    shown = run("jobs", "show", "prompts").output
    assert str(output / "images") in shown
    assert "2 images" in shown
    as_json = json.loads(run("jobs", "show", "prompts", "--json").output)
    assert [image["name"] for image in as_json["images"]] == ["00001", "dog"]
    assert as_json["makes"] == "images"
    assert "complete" in run("jobs", "explain", "prompts").output
    refused = run("jobs", "remove", output.name, "--adapter", "--yes")
    assert (refused.code, "has made no adapter" in refused.errors, output.is_dir()) == (2, True, True)
    assert "and its images" in run("jobs", "remove", output.name).output
    assert not output.exists()
    assert monster.is_dir()
    assert not list(settings.images.rglob(f"*{output.name}*"))  # its claim to the folder neither
