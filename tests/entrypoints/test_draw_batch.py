"""A batch as a job draws it: real processes that share the samples, are killed, and go on."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from drawn_adapters import sha256_of, write_adapters
from PIL import Image, ImageChops

from entrypoints.batches.publication import publish
from entrypoints.batches.share import draw_share
from entrypoints.batches.worker import Worker
from entrypoints.draw import draw_order
from entrypoints.draw_batch import draw_together, run
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.stop import StopFlag, Stopped
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.batch import (
    ADAPTERS_CHANNEL,
    SAMPLES_CHANNEL,
    BatchDrawing,
    BatchSamples,
    batches_of,
    share_of,
)
from orchestrator.contract.batch_result import IMAGES_FOLDER, DrawnImages, Sample, SampleAdapter
from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.environment import (
    RANKS_VARIABLE,
    ROOT_VARIABLE,
    Environment,
)
from orchestrator.contract.generation import AdapterUse, Generation

ROOT = Path(__file__).parents[2]
Uses = Sequence[tuple[str, float]]
Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def _log_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what is told: in some tests all workers are this process, and only the first one reports."""
    monkeypatch.setattr("orchestrator.contract.events._muted", False)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """Folder of the adapters that are drawn with, by their names."""
    return write_adapters(tmp_path_factory.mktemp("adapters"), base_folder)


GROUPS: Sequence[tuple[Uses, int, Mapping[str, Any]]] = (
    ([("dog", 0.8)], 3, {}),
    ([("ink", 1.0)], 2, {"steps": 3, "negative_prompt": "red"}),
    ([("dog", 0.8), ("ink", 0.5)], 2, {}),
    ([("dog", 1.0), ("word", 1.0)], 1, {"prompt": "a photo of a <word>"}),
    ([], 2, {"scheduler": "euler"}),
    ([("ink", 1.0)], 2, {}),
)
TOTAL = sum(count for _, count, _ in GROUPS)


@pytest.fixture(scope="module")
def samples(adapters: Path) -> BatchSamples:
    """Samples of six groups, those of a group not beside one another."""
    found: list[list[Sample]] = []
    for uses, count, fields in GROUPS:
        used = [SampleAdapter(name=name, sha256=sha256_of(adapters, name), weight=weight) for name, weight in uses]
        common = {
            "prompt": "a photo of a dog",
            "steps": 2,
            "guidance": 3.0,
            "width": tiny.SIDE,
            "height": tiny.SIDE,
            "adapters": used,
        }
        found.append([Sample.of("tiny", {**common, "seed": seed, **fields}) for seed in range(count)])
    mixed = [sample for row in itertools.zip_longest(*found) for sample in row if sample is not None]
    return BatchSamples(samples=tuple(mixed))


def differ_by(one: Path, other: Path) -> int:
    """Return the largest difference of two images, in levels of 255."""
    with Image.open(one) as first, Image.open(other) as second:
        return max(high for _, high in ImageChops.difference(first, second).getextrema())


Job = Callable[..., Environment]


@pytest.fixture(scope="module")
def lay_out(adapters: Path, samples: BatchSamples, base_folder: Path) -> Job:
    """Lay out the job of the batch in a folder."""

    def lay_out(root: Path, some: BatchSamples = samples) -> Environment:
        settings = BatchDrawing(base_model="tiny", images=len(some.samples))
        environment = tiny.lay_out(root, settings, base_folder)
        data = environment.root / "input" / "data"
        shutil.rmtree(data / "training")
        some.write(data / SAMPLES_CHANNEL)
        (data / ADAPTERS_CHANNEL).mkdir()
        for folder in adapters.iterdir():
            link = data / ADAPTERS_CHANNEL / AdapterManifest.read(folder).files_sha256
            link.symlink_to(folder, target_is_directory=True)
        return environment

    return lay_out


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, lay_out: Job) -> Environment:
    """The job, drawn by one worker without interruption."""
    torch.set_num_threads(1)
    environment = lay_out(tmp_path_factory.mktemp("drawn") / "job")
    run(environment, StopFlag())
    return environment


def images_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def kept_in(folder: Path) -> dict[str, int]:
    """Return the images that are kept, with the time at which each was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*.png")}


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start a host of a job as the service does; whatever still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(environment: Environment, workers: int) -> subprocess.Popen[str]:
        own = {ROOT_VARIABLE: str(environment.root), RANKS_VARIABLE: str(workers), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-m", "entrypoints.draw_batch"],
            env={**os.environ, "OMP_NUM_THREADS": "1", **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def events_until(process: subprocess.Popen[str], images: int) -> None:
    """Read what the first worker reports until it has drawn so many images."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "item" and event["done"] >= images:
            return
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    return [int(word) for word in found.stdout.split()]


def ends_with(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Wait for the end of a job and return its failures and warnings."""
    output, _ = process.communicate(timeout=240)
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [event for event in events if event["event"] in ("failed", "warning")]


def test_each_image_is_the_one_that_drawing_its_batch_alone_draws(
    drawn: Environment, samples: BatchSamples, adapters: Path, base_folder: Path, tmp_path: Path
) -> None:
    found = DrawnImages.read(drawn.model)
    assert found.damaged_files(drawn.model) == []
    assert {image.id for image in found.images} == {sample.id for sample in samples.samples}
    assert len({image.digest.sha256 for image in found.images}) == TOTAL
    for batch in batches_of(samples.samples, gpu=False):
        first = batch[0]
        if len(first.adapters) > 1:  # `adapters draw` has one
            continue
        order = DrawOrder(
            generation=Generation(
                prompts=(first.prompt,),
                seeds=tuple(sample.seed for sample in batch),
                negative_prompt=first.negative_prompt,
                steps=first.steps,
                guidance=first.guidance,
                size=first.width,
                scheduler=first.scheduler,
                adapters=tuple(AdapterUse(name=one.name, weight=one.weight) for one in first.adapters),
            ),
            folders={folder.name: folder for folder in adapters.iterdir()},
            base_model="tiny",
            base_folder=base_folder,
        )
        draw_order(order, tmp_path)
        for number, sample in enumerate(batch):
            assert (drawn.model / sample.file).read_bytes() == (tmp_path / order.file(number)).read_bytes(), sample
        # Alone, in another batch, sums are rounded in another order.
        alone = order.generation.model_copy(update={"seeds": (batch[-1].seed,)})
        draw_order(order.model_copy(update={"generation": alone}), tmp_path)
        assert differ_by(tmp_path / order.file(0), drawn.model / batch[-1].file) <= 1


def test_batches_and_shares_hold_each_sample_once_whatever_the_number_of_workers(samples: BatchSamples) -> None:
    many = tuple(samples.samples[0].model_copy(update={"id": f"{number:032x}"}) for number in range(300))
    batches = batches_of([*samples.samples, *many], gpu=False)
    assert max(len(batch) for batch in batches) == 128
    for workers in (1, 2, 3, 7, 50):
        shares = [list(share_of(batches, worker, workers)) for worker in range(workers)]
        assert [batch for share in shares for batch in share] == batches


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_leaves_the_same_bytes(
    drawn: Environment, lay_out: Job, tmp_path: Path, workers: int
) -> None:
    environment = lay_out(tmp_path / "job")
    every = Worker(0, workers, 0, workers).host
    for worker in reversed(every):
        before = images_in(environment.checkpoints)
        draw_share(environment, worker, StopFlag())
        assert len(images_in(environment.checkpoints)) > len(before)
    publish(environment, environment.hosts(), every)
    assert images_in(environment.model) == images_in(drawn.model)
    assert DrawnImages.read(environment.model) == DrawnImages.read(drawn.model)


@pytest.fixture(scope="module")
def slow(adapters: Path) -> BatchSamples:
    """Samples that take long enough to be interrupted, each a batch of its own."""
    dog = SampleAdapter(name="dog", sha256=sha256_of(adapters, "dog"))
    common = {"prompt": "a dog", "seed": 0, "guidance": 3.0, "width": tiny.SIDE, "height": tiny.SIDE, "adapters": [dog]}
    return BatchSamples(samples=tuple(Sample.of("tiny", {**common, "steps": 60 + number}) for number in range(6)))


@pytest.fixture(scope="module")
def slowly_drawn(tmp_path_factory: pytest.TempPathFactory, lay_out: Job, slow: BatchSamples) -> dict[str, bytes]:
    torch.set_num_threads(1)
    environment = lay_out(tmp_path_factory.mktemp("slowly") / "job", slow)
    run(environment, StopFlag())
    return images_in(environment.model)


def test_a_killed_worker_is_started_again_and_leaves_no_hole_and_no_double(
    slow: BatchSamples, slowly_drawn: dict[str, bytes], lay_out: Job, launch: Launch, tmp_path: Path
) -> None:
    environment = lay_out(tmp_path / "job", slow)
    process = launch(environment, 2)
    events_until(process, 1)
    workers = workers_of(process)
    assert len(workers) == 2
    kept = kept_in(environment.checkpoints / IMAGES_FOLDER)
    os.kill(workers[0], signal.SIGKILL)  # it has three images to draw, and one at most is there
    (warning,) = ends_with(process)
    assert process.returncode == 0
    assert warning["message"] == "Worker 1 of 2 was ended by SIGKILL. It is started again."
    assert kept_in(environment.checkpoints / IMAGES_FOLDER).items() >= kept.items()  # nothing was drawn again
    assert images_in(environment.model) == slowly_drawn
    assert len(DrawnImages.read(environment.model).images) == len(slow.samples)


def test_a_killed_host_leaves_nothing_half_and_its_job_goes_on(
    slow: BatchSamples, slowly_drawn: dict[str, bytes], lay_out: Job, launch: Launch, tmp_path: Path
) -> None:
    environment = lay_out(tmp_path / "job", slow)
    process = launch(environment, 1)
    events_until(process, 2)
    process.kill()
    assert ends_with(process) == []
    kept = kept_in(environment.checkpoints / IMAGES_FOLDER)
    assert 2 <= len(kept) < len(slow.samples)
    assert not environment.model.exists()
    run(environment, StopFlag())
    assert kept_in(environment.checkpoints / IMAGES_FOLDER).items() >= kept.items()
    assert images_in(environment.model) == slowly_drawn


def test_a_worker_that_is_killed_before_it_draws_anything_fails_the_job(
    lay_out: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = tmp_path / "python"  # in place of Python
    killer.write_text("#!/bin/sh\nkill -9 $$\n")
    killer.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killer))
    environment = lay_out(tmp_path / "job")
    with pytest.raises(TrainingError, match=r"Worker 1 of 2 was ended by SIGKILL; what .* is kept") as caught:
        draw_together(environment, Worker(0, 2, 0, 2).host, StopFlag())
    assert "jobs retry" in caught.value.next_step


class StopsAfter(StopFlag):
    """A request to end that comes at the Nth look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def check(self) -> None:
        self.looks -= 1
        self.asked = self.looks < 0
        super().check()


def test_a_stopped_job_goes_on_and_an_image_that_was_cut_off_is_drawn_again(
    drawn: Environment, lay_out: Job, tmp_path: Path
) -> None:
    environment = lay_out(tmp_path / "job")
    with pytest.raises(Stopped):
        run(environment, StopsAfter(9))
    folder = environment.checkpoints / IMAGES_FOLDER
    kept = sorted(folder.glob("*.png"))
    assert 0 < len(kept) < TOTAL
    kept[0].write_bytes(kept[0].read_bytes()[:60])
    run(environment, StopFlag())
    assert images_in(environment.model) == images_in(drawn.model)


def test_hosts_share_a_batch_without_a_disk_in_common(
    drawn: Environment, samples: BatchSamples, lay_out: Job, tmp_path: Path
) -> None:
    """What each host leaves ends up below one prefix: nothing overwrites anything, and together it is the batch."""
    prefix = tmp_path / "prefix"
    names = ["algo-1", "algo-2"]
    for name in names:
        environment = lay_out(tmp_path / name)
        resources = {"current_host": name, "hosts": names, "network_interface_name": "eth0"}
        environment.resource_config_file.write_text(json.dumps(resources))
        run(environment, StopFlag())
        left = {path.relative_to(environment.model) for path in environment.model.rglob("*") if path.is_file()}
        assert len(left) > 1
        for path in left:
            assert not (prefix / path).exists()
            (prefix / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(environment.model / path, prefix / path)
        if name == "algo-1":
            with pytest.raises(ValueError, match=r"index-2-of-2\.json is missing"):
                DrawnImages.read(prefix)
    found = DrawnImages.read(prefix)
    assert found.hosts == 2
    assert found.images == DrawnImages.read(drawn.model).images
    assert images_in(prefix) == images_in(drawn.model)
    assert found.samples_sha256 == samples.sha256


def test_what_cannot_be_drawn_is_said_before_the_first_image(
    samples: BatchSamples, lay_out: Job, tmp_path: Path
) -> None:
    common = {"prompt": "a", "seed": 0, "guidance": 1, "width": tiny.SIDE, "height": tiny.SIDE}
    last = Sample.of("tiny", {**common, "steps": 25})
    environment = lay_out(tmp_path / "job", BatchSamples(samples=(*samples.samples, last)))
    base = environment.root / "input" / "data" / "base_model"
    folder = shutil.copytree(base.resolve(), tmp_path / "base")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_train_timesteps": 20}))
    base.unlink()
    base.symlink_to(folder, target_is_directory=True)
    with pytest.raises(TrainingError, match="cannot draw in 25 steps"):
        run(environment, StopFlag())
    assert images_in(environment.checkpoints) == {}
