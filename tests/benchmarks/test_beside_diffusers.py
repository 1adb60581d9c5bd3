"""The benchmark beside diffusers' scripts: what it counts, runs, compares and says."""

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from safetensors import safe_open
from safetensors.numpy import save_file

from benchmarks.beside_diffusers.__main__ import main
from benchmarks.beside_diffusers.cases import COMPARISONS, CONTROLNET, DREAMBOOTH, TEXTUAL_INVERSION, Comparison
from benchmarks.beside_diffusers.materials import write_layouts, write_untrained
from benchmarks.beside_diffusers.ours import Ours, settings_of
from benchmarks.beside_diffusers.page import Measured, section, title
from benchmarks.beside_diffusers.quality import Result, asked_text, judge
from benchmarks.beside_diffusers.resumption import EQUAL, Resumption, difference, kill_on_the_way
from benchmarks.beside_diffusers.sides import Figures, Task
from benchmarks.beside_diffusers.theirs import Theirs, options_of
from benchmarks.process_tree import NOT_STARTED, Usage, measure
from benchmarks.report import write_section
from entrypoints.runtime.pictures import list_images
from orchestrator.contract.adapter import LORA_FILE
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.specs.building import build_spec
from orchestrator.targets.local.job_folder import AttemptState

# Ends at once, as our client may, and leaves a process of another session that works and takes memory, as our worker.
DETACHED = """
import os, time
if os.fork() == 0:
    os.setsid()
    for number in (0, 1, 2):
        os.close(number)
    taken = b"x" * 300_000_000
    while time.process_time() < 0.5:
        pass
    open("done", "w").close()
    os._exit(0)
print("step 1/2 done", flush=True)
os._exit(7)
"""
# Tells of steps as the scripts do, and never ends.
ENDLESS = """
import signal
print("Steps:  75%|##   | 6/8 [00:01<00:01, 1it/s]", end="\\r", flush=True)
print("Generating class images: 100%|##| 8/8 [00:01<00:00]", flush=True)
signal.pause()
"""
NUMBERS = Figures(10.0, 12.0, 4.0, 500_000_000)
NOT_KILLED = "differs, largest difference 0.5 of weights up to 2"


def a_task(comparison: Comparison, folder: Path, case: int = 0) -> Task:
    return Task(comparison, comparison.cases[case], 3, folder / "materials" / "pictures", folder / "run")


def a_usage(output: bytes) -> Usage:
    return Usage(0.0, 1.0, 1.0, 1, None, output, 0)


def test_what_a_command_leaves_behind_is_counted_with_it(tmp_path: Path) -> None:
    usage = measure([sys.executable, "-c", DETACHED], {}, tmp_path, mark=b" 1/2 ")
    assert (tmp_path / "done").exists()
    assert usage.cpu_seconds >= 0.5
    assert usage.peak_bytes >= 300_000_000
    assert usage.exit_code == 7
    assert usage.output == b"step 1/2 done\n"
    assert usage.marked is not None
    assert usage.marked < usage.wall_seconds


def test_a_command_that_does_not_exist_is_no_figure(tmp_path: Path) -> None:
    usage = measure([str(tmp_path / "python")], {}, tmp_path, mark=b"1/2")
    assert usage.exit_code == NOT_STARTED
    assert b"No such file" in usage.output
    assert usage.marked is None


def test_the_benchmark_keeps_torch_out_of_its_own_process() -> None:
    # The kernel counts the memory of the parent as that of a child until this is another program.
    code = "import sys, benchmarks.beside_diffusers.__main__; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert told.stdout.strip() == "False"


@pytest.mark.parametrize("recipe", COMPARISONS)
@pytest.mark.parametrize("given", [False, True])
def test_without_a_script_it_says_where_to_get_it(
    recipe: str, given: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--scripts", str(tmp_path)] if given else []
    with pytest.raises(SystemExit) as ended:
        main([*words, "--recipes", recipe])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "https://github.com/huggingface/diffusers" in message
    assert COMPARISONS[recipe].script_name in message.replace("\n", "")
    assert "--scripts" in message


@pytest.mark.parametrize(
    ("comparison", "case"),
    [(comparison, number) for comparison in COMPARISONS.values() for number in range(len(comparison.cases))],
)
def test_our_settings_of_every_case_are_those_of_a_job(comparison: Comparison, case: int, tmp_path: Path) -> None:
    task = a_task(comparison, tmp_path, case)
    task.pictures.mkdir(parents=True)
    typed = dict(word.split("=", 1) for word in Ours().words(task) if "=" in word)
    fields = {"recipe": comparison.recipe, "name": "trained", "images": str(task.pictures)}
    spec = build_spec(fields, typed)
    assert spec.recipe.steps == comparison.budget.steps
    assert spec.recipe.seed == 3


@pytest.mark.parametrize("comparison", COMPARISONS.values())
def test_both_sides_have_one_budget(comparison: Comparison, tmp_path: Path) -> None:
    short = comparison.with_steps(20)
    task = a_task(short, tmp_path)
    ours, theirs = settings_of(task), options_of(task)
    same = {
        "steps": "max_train_steps",
        "batch_size": "train_batch_size",
        "learning_rate": "learning_rate",
        "lr_schedule": "lr_scheduler",
        "resolution": "resolution",
        "seed": "seed",
        "checkpoint_steps": "checkpointing_steps",
    }
    for name, option in same.items():
        assert ours[name] == theirs[option]
    assert (ours["steps"], ours["checkpoint_steps"]) == (20, 10)
    assert theirs["lr_warmup_steps"] == 0


def test_each_side_goes_on_after_a_kill_by_its_own_option(tmp_path: Path) -> None:
    task = a_task(DREAMBOOTH, tmp_path, case=2)
    theirs = Theirs("python", tmp_path)
    assert Ours().words(task, again=True) == [*Ours().words(task), "--resume"]
    assert theirs.words(task, again=True) == [*theirs.words(task), "--resume_from_checkpoint", "latest"]
    flag = theirs.words(task).index("--with_prior_preservation")
    assert theirs.words(task)[flag + 1].startswith("--")


def test_a_script_is_killed_at_the_step_that_its_bar_tells(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / DREAMBOOTH.script_name).write_text(ENDLESS)
    task = a_task(DREAMBOOTH.with_steps(8), tmp_path)
    assert kill_on_the_way(Theirs(sys.executable, scripts), task) == 6


def test_of_ours_the_client_the_worker_and_the_training_are_killed(tmp_path: Path) -> None:
    task = a_task(DREAMBOOTH, tmp_path)
    job = task.folder / "jobs" / "trained-1"
    job.mkdir(parents=True)
    (job / "log.txt").touch()
    endless = [sys.executable, "-c", "import signal; signal.pause()"]
    client, worker, training = (subprocess.Popen(endless) for _ in range(3))
    state = AttemptState(started=datetime.now(UTC), worker_pid=worker.pid, handle=str(training.pid))
    (job / "state.json").write_text(state.model_dump_json())
    Ours().kill(task, client)
    assert [process.wait() for process in (client, worker, training)] == [-signal.SIGKILL] * 3


def test_a_script_that_ends_before_the_kill_is_shown(tmp_path: Path) -> None:
    (tmp_path / DREAMBOOTH.script_name).write_text("raise SystemExit('no such option')")
    with pytest.raises(SystemExit, match="no such option"):
        kill_on_the_way(Theirs(sys.executable, tmp_path), a_task(DREAMBOOTH.with_steps(8), tmp_path))


def test_where_a_second_command_goes_on_is_read_from_what_it_says(tmp_path: Path) -> None:
    task = a_task(DREAMBOOTH, tmp_path)
    theirs = Theirs("python", tmp_path)
    assert theirs.resumed_from(task, a_usage(b"Resuming from checkpoint checkpoint-125\n")) == 125
    assert theirs.resumed_from(task, a_usage(b"Steps: 0%")) is None
    assert Ours().resumed_from(task, a_usage(b"")) is None
    job = task.folder / "jobs" / "trained-1"
    job.mkdir(parents=True)
    lines = ['{"event": "step", "step": 190, "of": 250, "loss": 1, "learning_rate": 1, "seconds_per_step": 1}']
    lines += ['{"event": "resumed", "step": 125}', "plain text"]
    (job / "log.txt").write_text("\n".join(lines))
    assert Ours().resumed_from(task, a_usage(b"")) == 125
    assert Ours().steps_done(task) == 190


def test_files_of_weights_are_compared_by_bytes_and_then_by_values(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one", "same", "header", "other", "names", "shape")]
    one, same, header, other, names, shape = paths
    weights = np.array([1.0, -2.0], dtype=np.float32)
    save_file({"a": weights}, one)
    save_file({"a": weights}, same)
    save_file({"a": weights}, header, {"format": "pt"})
    save_file({"a": weights + np.float32(0.5)}, other)
    save_file({"b": weights}, names)
    save_file({"a": weights[:1]}, shape)
    assert difference(one, same) == EQUAL
    assert difference(one, header) == "equal but for its header"
    assert difference(one, other) == NOT_KILLED
    assert difference(one, names) == "differs in the names of its tensors"
    assert difference(one, shape) == "differs in the shape of a"


def test_a_training_that_begins_anew_does_all_its_steps_again() -> None:
    anew = Resumption(EQUAL, killed_at=190, resumed_from=None, ended=EQUAL)
    assert (anew.done_again, anew.verdict) == (190, "starts over; equal")
    resumed = anew._replace(resumed_from=125)
    assert (resumed.done_again, resumed.verdict) == (65, EQUAL)


def test_both_sides_are_shown_the_same_maps(tmp_path: Path) -> None:
    write_layouts(tmp_path)
    folder = tmp_path / "layouts"
    ours = list_images(folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(ours) == len(rows) == 48
    for image, row in zip(ours, rows, strict=True):
        assert image.path == folder / row["file_name"]
        assert image.condition == folder / row["conditioning_image_file_name"]
        assert image.caption == row["text"]


def test_each_result_is_asked_in_the_words_it_was_trained_with() -> None:
    prompt = "a photo of <subject> on a red background"
    theirs = Result(Path("file"), TEXTUAL_INVERSION.asked_as)
    assert asked_text(prompt, Result(Path("file"))) == prompt
    assert asked_text(prompt, theirs) == "a photo of a <subject> on a red background"


def test_an_adapter_that_changes_nothing_draws_what_the_base_model_draws(tmp_path: Path) -> None:
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    with safe_open(BUILTIN_MODEL / "unet" / "diffusion_pytorch_model.safetensors", "np") as denoiser:
        rows, columns = denoiser.get_slice(f"{layer}.weight").get_shape()
    adapter = {
        f"unet.{layer}.lora_A.weight": np.ones((2, columns), dtype=np.float32),
        f"unet.{layer}.lora_B.weight": np.zeros((rows, 2), dtype=np.float32),
    }
    save_file(adapter, tmp_path / LORA_FILE)
    (row,) = judge("dreambooth", 1, [Result(tmp_path / LORA_FILE)], prompts=2)
    assert row["drift"] == "0.000 [0.000, 0.000]"
    assert row["prompt fidelity, beside the base model's"] == "0.000 [0.000, 0.000]"


def test_a_controlnet_is_judged_by_its_own_maps_and_by_those_of_others(tmp_path: Path) -> None:
    write_untrained(tmp_path)
    folder = tmp_path / "untrained"
    network = ControlNetModel.from_pretrained(folder)
    with torch.no_grad():  # a condition that nothing holds back
        torch.manual_seed(0)
        network.controlnet_cond_embedding.conv_out.weight.normal_(0, 20)
        for convolution in network.controlnet_down_blocks:
            convolution.weight.normal_(0, 0.1)
    steered = tmp_path / "steered"
    network.save_pretrained(steered)
    results = [Result(each / CONTROLNET.weights) for each in (folder, steered)]
    untrained, other = judge("controlnet", 1, results, prompts=2)
    assert untrained["times"] == "1.000 [1.000, 1.000]"
    assert untrained["with - shuffled"] == "0.000 [0.000, 0.000]"
    assert other["edge F1 without a map"] == untrained["edge F1 without a map"]
    assert other["with - shuffled"] != untrained["with - shuffled"]


def measured(comparison: Comparison) -> Measured:
    shared, alone = comparison.cases[0], comparison.cases[-1]
    ours, theirs = "orchestrator", "diffusers' script"
    slower = NUMBERS._replace(cpu_seconds=15.0)
    return Measured(
        comparison=comparison,
        sides=[ours, theirs],
        asked_for="0.40.0.dev0",
        rounds=1,
        images=4,
        load=3.21,
        figures={(shared.name, ours): [NUMBERS], (shared.name, theirs): [slower], (alone.name, ours): [NUMBERS]},
        quality={(shared.name, ours, 0): {"drift": "0.1"}, (shared.name, theirs, 0): {"drift": "0.2"}},
        kills={(shared.name, theirs): Resumption(EQUAL, 190, 125, NOT_KILLED)},
    )


@pytest.mark.parametrize("comparison", COMPARISONS.values())
def test_the_section_has_time_quality_and_kills(comparison: Comparison) -> None:
    text = section(measured(comparison))
    shared, alone = comparison.cases[0].name, comparison.cases[-1].name
    assert f"| {shared} | diffusers' script | 15.0 | 12.0 | 4.0 | 500 |" in text
    assert f"| {alone} | orchestrator | 10.0 | 12.0 | 4.0 | 500 |" in text
    assert f"| {shared} | 1.50 | 1.00 | 1.00 | 1.00 |" in text
    assert f"| {alone} | 1." not in text
    assert "The machine's load was 3.2 at most" in text
    assert f"| {shared} | diffusers' script | 0 | 0.2 |" in text
    assert f"| {shared} | diffusers' script | equal | 190 | 65 | {NOT_KILLED} |" in text
    assert "{" not in text
    prose = [line for line in text.splitlines() if not line.startswith("|")]
    assert max(map(len, prose)) <= 120


def test_a_recipe_that_is_measured_alone_leaves_the_sections_of_the_others(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    for body in ("first", "second"):
        write_section(title("dreambooth"), f"{body} of dreambooth", page)
        if body == "first":
            write_section(title("controlnet"), "of controlnet", page)
    text = page.read_text()
    assert "second of dreambooth" in text
    assert "first of dreambooth" not in text
    assert "of controlnet" in text
