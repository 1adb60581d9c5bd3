"""Every way a job can fail: one message with the cause and the next step, and nothing left half-written."""

import errno
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from entrypoints import train
from entrypoints.models.hub import fetch_from_hub
from entrypoints.models.loading import fingerprint, load_base_model
from entrypoints.runtime.failures import TrainingError, failure_of, out_of_memory
from entrypoints.runtime.machine import require_gpu
from entrypoints.training import checkpoint
from orchestrator.aws.instances import instances
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.environment import EXIT_FAILED, FAILURE_LIMIT, ROOT_VARIABLE, Environment
from orchestrator.jobs.failure_patterns import diagnose
from tests.models.server import ask_only, serving

CPU = torch.device("cpu")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEWER_COMMIT = "fedcba9876543210fedcba9876543210fedcba98"


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """Run `main()` on a job in this process; return exit status, events and what was written to stderr."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run_main(environment: Environment) -> tuple[int, list[dict[str, Any]], str]:
        monkeypatch.setenv(ROOT_VARIABLE, str(environment.root))
        capfd.readouterr()
        status = train.main()
        output = capfd.readouterr()
        return status, [json.loads(line) for line in output.out.splitlines()], output.err

    yield run_main
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_run_that_ends_well(job: Any, main: Any) -> None:
    environment = job(tiny.textual_inversion())
    status, events, errors = main(environment)
    assert status == 0
    assert errors == ""
    assert events[0]["event"] == "phase"
    assert (environment.model / "learned_embeds.safetensors").is_file()
    assert not environment.failure_file.exists()


def assert_failed(environment: Environment, outcome: Any, kind: str, words: str) -> None:
    status, events, errors = outcome
    assert status == EXIT_FAILED
    assert events[-1]["event"] == "failed"
    assert events[-1]["kind"] == kind
    assert words in events[-1]["message"]
    assert events[-1]["next_step"]
    text = environment.failure_file.read_text()
    assert text == f"{events[-1]['message']}\nNext: {events[-1]['next_step']}"[:FAILURE_LIMIT]
    assert ("Traceback" in errors) == (kind == "bug")
    assert not environment.model.exists()


def test_a_missing_base_model(job: Any, main: Any) -> None:
    environment = job(tiny.dreambooth(), base_model=None)
    assert_failed(environment, main(environment), "base-model", "did not reach the job")


def test_a_model_of_another_family(job: Any, main: Any, tmp_path: Path) -> None:
    folder = tmp_path / "flux"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    environment = job(tiny.dreambooth(), base_model=folder)
    assert_failed(environment, main(environment), "base-model", "FluxPipeline")


def test_a_model_without_safetensors_is_not_unpickled(job: Any, main: Any, tmp_path: Path) -> None:
    folder = tiny.write_base_model(tmp_path / "pickled")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    environment = job(tiny.dreambooth(), base_model=folder)
    assert_failed(environment, main(environment), "base-model", "a pickle, which can run code and is not read")


def test_a_model_with_code_of_its_own_is_not_run(job: Any, main: Any, tmp_path: Path) -> None:
    folder = tiny.write_base_model(tmp_path / "code")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "unet": ["own_unet", "OwnUnet"]}))
    (folder / "unet" / "own_unet.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    environment = job(tiny.dreambooth(), base_model=folder)
    assert_failed(environment, main(environment), "base-model", "unet is own_unet.OwnUnet")
    assert not (tmp_path / "ran").exists()


def test_a_truncated_weights_file(job: Any, main: Any, tmp_path: Path) -> None:
    folder = tiny.write_base_model(tmp_path / "cut")
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    environment = job(tiny.dreambooth(), base_model=folder)
    assert_failed(environment, main(environment), "base-model", "vae/diffusion_pytorch_model.safetensors is cut")


def test_hyperparameters_that_are_no_recipe(job: Any, main: Any) -> None:
    environment = job(tiny.dreambooth())
    values = environment.hyperparameters()
    environment.hyperparameters_file.write_text(json.dumps({**values, "rank": '"many"'}))
    assert_failed(environment, main(environment), "recipe", "rank")


def test_an_existing_placeholder(job: Any, main: Any) -> None:
    environment = job(tiny.textual_inversion(placeholder_token="dog"))
    assert_failed(environment, main(environment), "token", '"dog"')


def test_an_unforeseen_error_is_a_bug_with_a_traceback(job: Any, main: Any) -> None:
    environment = job(tiny.dreambooth())
    environment.hyperparameters_file.unlink()
    assert_failed(environment, main(environment), "bug", "FileNotFoundError")


def test_a_full_disk() -> None:
    with pytest.raises(OSError, match="space") as caught, Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
    assert caught.value.errno == errno.ENOSPC
    failure = failure_of(caught.value)
    assert failure
    assert failure.kind == "disk-full"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint of the tiny model, where this machine lets us mount one."""
    folder = tmp_path / "job" / "checkpoints"
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_while_training(job: Any, main: Any, small_disk: Path) -> None:
    environment = job(tiny.dreambooth(checkpoint_steps=1, rank=4, prior_preservation=False))
    assert_failed(environment, main(environment), "disk-full", "No space")
    whole = [path for path in checkpoint.newest_first(small_disk) if checkpoint.read_manifest(path)]
    assert [path.name for path in whole] == ["step-00000001"]
    assert sorted(path.name for path in small_disk.iterdir()) == ["history.jsonl", "step-00000001"]


def test_too_little_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    failure = failure_of(caught.value)
    assert failure
    assert failure.kind == "out-of-memory"
    assert "batch_size" in failure.next_step


def test_too_little_main_memory_beside_a_gpu_is_not_mended_by_a_smaller_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for error in (MemoryError("no"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")):
        failure = failure_of(error)
        assert failure
        assert "main memory" in failure.message
        assert "--instance-type" in failure.next_step
    on_gpu = failure_of(torch.OutOfMemoryError("CUDA out of memory."))
    assert on_gpu
    assert "batch_size" in on_gpu.next_step


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU of this machine")
def test_a_gpu_that_torch_cannot_use_is_not_paid_for(tmp_path: Path) -> None:
    driver = tmp_path / "version"
    with pytest.raises(TrainingError, match=r"ml\.g5\.xlarge has a GPU, and the container sees no driver"):
        require_gpu("ml.g5.xlarge", driver)
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03\nGCC version: 12\n")
    with pytest.raises(TrainingError, match=r"535\.54\.03") as raised:
        require_gpu("ml.g5.xlarge", driver)
    assert raised.value.kind == "driver"
    assert "--instance-type" in raised.value.next_step


@pytest.mark.parametrize(
    ("instance_type", "has_gpu"),
    [
        *[(name, True) for name in instances()],
        ("ml.gr6.4xlarge", True),
        ("ml.m5.xlarge", False),
        ("ml.c7i.large", False),
        ("ml.trn1.2xlarge", False),
        ("local", False),
        ("", False),
    ],
)
def test_whether_there_has_to_be_a_gpu_follows_from_the_instance_type(
    tmp_path: Path, instance_type: str, has_gpu: bool
) -> None:
    environment = Environment(root=tmp_path)
    environment.resource_config_file.parent.mkdir(parents=True)
    described = {"current_host": "algo-1", "hosts": ["algo-1"], "current_instance_type": instance_type}
    environment.resource_config_file.write_text(json.dumps(described))
    assert environment.hosts().has_gpu is has_gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU of this machine")
@pytest.mark.parametrize(("instance_type", "kind"), [("ml.g5.xlarge", "driver"), ("ml.m5.xlarge", "")])
def test_a_job_on_a_gpu_instance_ends_at_once_without_a_visible_gpu_and_on_a_cpu_instance_it_trains(
    job: Any, main: Any, monkeypatch: pytest.MonkeyPatch, instance_type: str, kind: str
) -> None:
    environment = job(tiny.dreambooth(steps=1, prior_preservation=False))
    monkeypatch.setattr("entrypoints.train.DEFAULT_ROOT", environment.root)  # as in the container of the service
    described = {"current_host": "algo-1", "hosts": ["algo-1"], "current_instance_type": instance_type}
    environment.resource_config_file.write_text(json.dumps(described))
    outcome = main(environment)
    if kind:
        assert_failed(environment, outcome, kind, "ml.g5.xlarge has a GPU")
    else:
        assert outcome[0] == 0


@pytest.mark.parametrize(("on_service", "kept"), [(True, [3]), (False, [2, 3])])
def test_a_complete_job_keeps_its_newest_checkpoint_until_its_adapter_is_in_the_bucket(
    job: Any, main: Any, on_service: bool, kept: list[int]
) -> None:
    recipe = tiny.dreambooth(steps=3, checkpoint_steps=1, prior_preservation=False, evaluation_prompts=0)
    environment = job(recipe)
    described = {"current_host": "algo-1", "hosts": ["algo-1"], "current_instance_type": "ml.m5.xlarge"}
    if on_service:
        environment.resource_config_file.write_text(json.dumps(described))
    assert main(environment)[0] == 0
    folders = sorted(environment.checkpoints.glob("step-*"))
    assert [checkpoint.read_manifest(folder).step for folder in folders] == kept
    (environment.model / "adapter.json").unlink()  # it did not arrive: the job is retried
    status, events, _ = main(environment)
    assert status == 0
    assert [event["step"] for event in events if event["event"] == "resumed"] == [3]


def test_a_host_that_writes_no_checkpoints_drops_its_copies_of_older_ones(tmp_path: Path) -> None:
    for name in ("step-00000001", ".step-00000002.draft", "cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "base_model.json").touch()
    checkpoint.drop_before(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base_model.json", "cache"]


def kind_of(message: str) -> str | None:
    """Return the kind that the client sees in a message when all it has is the service's reason."""
    recognised = diagnose(f"AlgorithmError: {message}, exit code: 1")
    return recognised.pattern.kind if recognised else None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left"),
        torch.OutOfMemoryError("CUDA: 2 GiB were asked for"),
        RuntimeError("Connection reset by peer"),
        RuntimeError("gloo/transport/tcp/pair.cc: timed out"),
        torch.distributed.DistNetworkError("the store is gone"),
    ],
)
def test_the_client_recognises_what_training_says_of_an_error(error: Exception) -> None:
    failure = failure_of(error)
    assert failure
    assert kind_of(failure.message) == failure.kind


@pytest.mark.parametrize("driver", ["", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU of this machine")
def test_the_client_recognises_what_training_says_of_a_gpu_it_cannot_use(tmp_path: Path, driver: str) -> None:
    if driver:
        (tmp_path / "version").write_text(driver)
    with pytest.raises(TrainingError) as raised:
        require_gpu("ml.g5.xlarge", tmp_path / "version")
    assert kind_of(raised.value.message) == raised.value.kind


def test_the_client_recognises_main_memory_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert kind_of(out_of_memory(MemoryError(), "").message) == "host-memory"


def test_other_errors_are_not_explained_away() -> None:
    assert failure_of(RuntimeError("shapes do not match")) is None
    assert failure_of(OSError(errno.EACCES, "permission denied")) is None


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base_folder: Path) -> Path:
    """A cache as huggingface_hub lays it out, and no network."""
    repository = tmp_path / "hub" / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / COMMIT).symlink_to(base_folder, target_is_directory=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_hub_model_comes_from_the_cache_with_its_commit(revision: str | None) -> None:
    folder, commit = fetch_from_hub("someone/tiny", revision)
    assert commit == COMMIT
    assert (folder / "model_index.json").is_file()


@pytest.mark.usefixtures("hub")
def test_a_hub_model_is_trained_offline(job: Any, main: Any) -> None:
    environment = job(tiny.dreambooth(base_model="someone/tiny", evaluation_prompts=0), base_model=None)
    status, _, _ = main(environment)
    assert status == 0
    manifest = json.loads((environment.model / "adapter.json").read_text())
    assert manifest["base_model"]["id"] == "someone/tiny"
    assert manifest["base_model"]["revision"] == COMMIT


def test_a_hub_model_that_moves_on_does_not_move_the_run(job: Any, main: Any, hub: Path, tmp_path: Path) -> None:
    recipe = tiny.textual_inversion(base_model="someone/tiny", evaluation_prompts=0)
    environment = job(recipe, base_model=None)
    assert main(environment)[0] == 0
    newer = tiny.write_base_model(tmp_path / "newer", prediction_type="epsilon")
    (hub / "snapshots" / NEWER_COMMIT).symlink_to(newer, target_is_directory=True)
    (hub / "refs" / "main").write_text(NEWER_COMMIT)
    status, events, _ = main(environment)
    assert status == 0
    assert [event["step"] for event in events if event["event"] == "resumed"] == [recipe.steps]
    assert json.loads((environment.model / "adapter.json").read_text())["base_model"]["revision"] == COMMIT
    fresh = job(recipe, "fresh", base_model=None)
    main(fresh)
    assert json.loads((fresh.model / "adapter.json").read_text())["base_model"]["revision"] == NEWER_COMMIT


def test_a_run_goes_on_with_the_same_model_from_a_mirrored_copy(
    job: Any, main: Any, hub: Path, base_folder: Path
) -> None:
    recipe = tiny.textual_inversion(base_model="someone/tiny", evaluation_prompts=0)
    fetched = job(recipe, base_model=None)
    assert main(fetched)[0] == 0
    mirrored = job(recipe.model_copy(update={"base_revision": COMMIT}), base_model=base_folder)
    status, events, _ = main(mirrored)
    assert status == 0
    assert [event["step"] for event in events if event["event"] == "resumed"] == [recipe.steps]
    reference = AdapterManifest.read(mirrored.model).base_model
    assert (reference.id, reference.revision) == ("someone/tiny", COMMIT)


def test_a_gated_model_says_where_a_token_is_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        ask_only(server, tmp_path, monkeypatch)
        server.add("someone/gated", {"model_index.json": b"{}"}, gated=True)
        with pytest.raises(TrainingError, match="is gated on the Hugging Face Hub") as caught:
            fetch_from_hub("someone/gated", None)
    assert caught.value.kind == "gated-model"
    assert "hf auth login" in caught.value.next_step
    assert "models mirror someone/gated" in caught.value.next_step


def test_another_size_than_the_models_own_is_remarked_on(job: Any, main: Any) -> None:
    environment = job(tiny.textual_inversion(resolution=2 * tiny.SIDE, steps=1, evaluation_prompts=0))
    _, events, _ = main(environment)
    (warning,) = [event["message"] for event in events if event["event"] == "warning"]
    assert f"resolution={tiny.SIDE}" in warning


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("name", "revision"), [("someone/else", None), ("someone/tiny", "no-such-branch")])
def test_a_hub_model_that_is_not_there_offline(name: str, revision: str | None) -> None:
    with pytest.raises(TrainingError, match=f'no folder "{name}"') as caught:
        fetch_from_hub(name, revision)
    assert caught.value.kind == "hub"
    assert "jobs retry" in caught.value.next_step


def test_equal_weights_have_equal_fingerprints(base_folder: Path, tmp_path: Path) -> None:
    elsewhere = tiny.write_base_model(tmp_path / "elsewhere")
    assert fingerprint(elsewhere) == fingerprint(base_folder)
    path = elsewhere / "unet" / "diffusion_pytorch_model.safetensors"
    assert load_file(path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert fingerprint(elsewhere) != fingerprint(base_folder)


def test_the_base_model_is_loaded_in_float32(base_folder: Path) -> None:
    base = load_base_model(base_folder, "builtin", None, CPU)
    assert {parameter.dtype for parameter in base.denoiser.parameters()} == {torch.float32}
    assert base.process.prediction_type == "v_prediction"
    assert base.process.alphas_cumprod[-1] == 0  # zero terminal signal-to-noise ratio
