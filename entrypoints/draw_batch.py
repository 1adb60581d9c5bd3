"""The entry of a job that draws a batch: each device of each host draws its share of the samples.

An image is kept with the checkpoints as soon as its batch is drawn, in a file that appears by a rename and is named by
all that the image depends on. A job that lost a worker, or all of them, therefore draws only what is missing; and
because batches do not depend on what is there already, or on the number of workers, its images are the same bytes.
When its workers are done, a host leaves their images with an index (`orchestrator/contract/batch_result.py`).
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from entrypoints import train
from entrypoints.runtime import libraries, process
from entrypoints.runtime.folders import replace_folder
from entrypoints.runtime.hosts import hosts_of, processes_of_host
from entrypoints.runtime.stop import StopFlag, Stopped
from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.batch import (
    ADAPTERS_CHANNEL,
    SAMPLES_CHANNEL,
    BatchDrawing,
    BatchSamples,
    batches_of,
    share_of,
)
from orchestrator.contract.batch_result import IMAGES_FOLDER, DrawnImage, HostIndex, Sample
from orchestrator.contract.digest import hash_file
from orchestrator.contract.environment import BASE_MODEL_CHANNEL, DEFAULT_ROOT, EXIT_STOPPED, Environment, Hosts
from orchestrator.contract.events import Item, Phase, Warned, emit, mute
from orchestrator.contract.families import INDEX_FILE, family_in, is_hub_id
from orchestrator.contract.generation import SchedulerName
from orchestrator.contract.model_layout import files_sha256, weight_files
from orchestrator.contract.plurals import counted
from orchestrator.contract.recipe import from_hyperparameters
from orchestrator.contract.text_length import length_problems

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from entrypoints.models.base import BaseModel
    from entrypoints.runtime.failures import TrainingError

_MOST_WARNINGS = 5
"""Prompts that are warned of one by one."""


class Worker(NamedTuple):
    """A process that draws a share of the batch."""

    number: int
    """From 0, among those of all hosts."""
    workers: int
    """How many there are."""
    device: int
    """Its number on its host, which is that of its GPU too."""
    processes: int
    """How many there are on each host."""

    @property
    def host(self) -> "list[Worker]":
        """All workers of its host."""
        first = self.number - self.device
        found = []
        for device in range(self.processes):
            found.append(Worker(first + device, self.workers, device, self.processes))
        return found


def main(arguments: Sequence[str] = ()) -> int:
    """Draw the job in the folder `ORCHESTRATOR_ML_ROOT` and return the exit status.

    Without arguments this is the entry of a host; with those of a `Worker` it is one of its processes.
    """
    libraries.apply_settings()
    environment = Environment.from_variables()
    stop = StopFlag()
    stop.listen()
    if arguments:
        train.end_with_launcher()
        worker = Worker(*map(int, arguments))
        return train.exit_status(environment, lambda: draw_share(environment, worker, stop))
    environment.failure_file.unlink(missing_ok=True)  # of an earlier attempt
    return train.exit_status(environment, lambda: run(environment, stop))


def run(environment: Environment, stop: StopFlag) -> None:
    """Have this host's workers draw, and leave their images.

    Raises Stopped when the job was asked to end, and TrainingError when a worker has failed.
    """
    processes = processes_of_host()
    hosts = hosts_of(environment)
    first = Worker(hosts.number * processes, len(hosts.hosts) * processes, 0, processes)
    workers = first.host
    stop.check()
    if len(workers) == 1:
        draw_share(environment, first, stop)
    else:
        _base_folder(environment, _settings(environment))  # a model of the Hub is fetched, and its commit noted, once
        draw_together(environment, workers, stop)
    publish(environment, hosts, workers)


def draw_together(
    environment: Environment,
    workers: Sequence[Worker],
    stop: StopFlag,
) -> None:
    """Have workers draw, each in a process of its own. One that is killed ends no other, and is started again.

    Raises Stopped when they were asked to end, and TrainingError when one has failed, or is killed again before any
    image is drawn. One that could has reported the failure already, and then nothing is added to it.
    """
    folder = _kept_folder(environment)
    folder.mkdir(parents=True, exist_ok=True)
    left = workers
    while left:
        before = set(folder.iterdir())
        codes = start_and_wait(left, stop)
        killed = []
        for worker, code in zip(left, codes, strict=True):
            has_drawn = set(folder.iterdir()) > before
            if code < 0 and has_drawn and not stop.asked:
                killed.append(worker)
                emit(Warned(message=f"{_ending(worker, code)}. It is started again."))
            elif code not in (0, EXIT_STOPPED) and not stop.asked:
                raise _lost(worker, code)
        if stop.asked or EXIT_STOPPED in codes:
            raise Stopped
        left = killed


def start_and_wait(workers: Sequence[Worker], stop: StopFlag) -> list[int]:
    """Start a process for each worker, wait for all, and return their exit codes; a request to end is passed on."""
    variables = {**os.environ, train.LAUNCHER_VARIABLE: str(os.getpid())}
    started = []
    for worker in workers:
        arguments = map(str, worker)
        process_of_worker = subprocess.Popen(
            [sys.executable, "-u", "-m", "entrypoints.draw_batch", *arguments],
            env=variables,
        )
        started.append(process_of_worker)

    def pass_on(*_: object) -> None:
        stop.asked = True
        for one in started:
            one.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    if stop.asked:  # before there was somebody to pass it on to
        pass_on()
    codes = []
    for one in started:
        codes.append(one.wait())
    stop.listen()
    return codes


def _ending(worker: Worker, code: int) -> str:
    """Return in words how a worker ended that has not drawn its share."""
    ending = f"ended with exit code {code}"
    if code < 0:
        ending = f"was ended by {signal.Signals(-code).name}"
    return f"Worker {worker.number + 1} of {worker.workers} {ending}"


def _lost(worker: Worker, code: int) -> "TrainingError":
    """Return the failure for a worker that has not drawn its share."""
    from entrypoints.runtime.failures import TrainingError

    return TrainingError(
        "lost-process",
        f"{_ending(worker, code)}; what it and the others have drawn is kept.",
        "If the host was short of memory, start fewer workers. Draw what is missing with: "
        "python -m orchestrator jobs retry JOB",
    )


def draw_share(environment: Environment, worker: Worker, stop: StopFlag) -> None:
    """Draw what is missing of a worker's share.

    Raises Stopped when the process was asked to end, and TrainingError when something cannot be loaded.
    """
    if worker.number > 0:  # the first one reports for all
        mute()
    emit(Phase(name="loading"))
    # Imported here because they import torch: it takes seconds, and must come after the settings.
    from entrypoints.adapters.combining import Combining
    from entrypoints.runtime.failures import advising_on_memory

    libraries.quieten()
    process.resume_collector()
    settings = _settings(environment)
    device = _device(environment, worker)
    every = BatchSamples.read(_channel(environment, SAMPLES_CHANNEL))
    batches = batches_of(every.samples, gpu=device.type != "cpu")
    folder = _kept_folder(environment)
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    for batch in share_of(batches, worker.number, worker.workers):
        if not _is_drawn(batch, folder):
            missing.append(batch)

    def load() -> "BaseModel":
        return _load(environment, settings, device)

    models = Combining(load, environment.channel(ADAPTERS_CHANNEL))
    progress = Progress(folder, batches, worker)
    with advising_on_memory(settings.memory_advice):
        if missing:
            first = missing[0][0]
            base = models.base_with(first.adapters)
            _require_drawable(base, every.samples)
        progress.begin()
        for batch in missing:
            stop.check()
            base = models.base_with(batch[0].adapters)
            images = _drawn(base, batch, stop)
            for sample, image in zip(batch, images, strict=True):
                _keep(image, _kept(folder, sample))
            progress.tell()


class Progress:
    """Tells how many images of a host are drawn, by all of its workers: the first one of all tells it."""

    def __init__(
        self,
        folder: Path,
        batches: Sequence[Sequence[Sample]],
        worker: Worker,
    ) -> None:
        self.folder = folder
        self.worker = worker
        self.names: set[str] = set()
        for one in worker.host:
            for batch in share_of(batches, one.number, one.workers):
                self.names.update(_kept(folder, sample).name for sample in batch)

    def begin(self) -> None:
        """Tell that images are drawn from now on."""
        name = "images"
        hosts = self.worker.workers // self.worker.processes
        if hosts > 1:
            name = f"images of the first of {hosts} instances"
        emit(Phase(name=name, of=len(self.names)))
        self.tell()

    def tell(self) -> None:
        """Tell how many there are; nothing before the first, and by a worker that does not report."""
        if self.worker.number > 0:
            return
        done = 0
        for entry in os.scandir(self.folder):
            if entry.name in self.names:
                done += 1
        if done:
            emit(Item(done=done, of=len(self.names)))


def _drawn(
    base: "BaseModel",
    batch: Sequence[Sample],
    stop: StopFlag,
) -> "list[Image.Image]":
    """Draw a batch by a base model that has its adapters."""
    from entrypoints.models.sampling import Drawing, DrawRequest, draw_batch

    first = batch[0]
    drawing = Drawing(
        steps=first.steps,
        guidance=first.guidance,
        size=first.size,
        negative_prompt=first.negative_prompt,
    )
    requests = []
    for sample in batch:
        requests.append(DrawRequest(sample.prompt, sample.seed))
    with _scheduled(base, first.scheduler):
        return draw_batch(base, requests, drawing, stop.check)


def publish(
    environment: Environment,
    hosts: Hosts,
    workers: Sequence[Worker],
) -> None:
    """Leave the images of this host's workers, with their index, in a folder that is moved into place whole."""
    import torch

    from entrypoints.runtime.machine import library_versions

    every = BatchSamples.read(_channel(environment, SAMPLES_CHANNEL))
    batches = batches_of(every.samples, gpu=torch.cuda.is_available())
    folder = _kept_folder(environment)
    draft = environment.model.with_name(".model.draft")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / IMAGES_FOLDER).mkdir(parents=True)
    images = []
    for worker in workers:
        for batch in share_of(batches, worker.number, worker.workers):
            for sample in batch:
                path = draft / sample.file
                _copy(_kept(folder, sample), path)
                image = DrawnImage(**sample.model_dump(), digest=hash_file(path))
                images.append(image)
    settings = _settings(environment)
    index = HostIndex(
        host=hosts.number,
        hosts=len(hosts.hosts),
        total=len(every.samples),
        samples_sha256=every.sha256,
        base_model=_reference(environment, settings),
        libraries=library_versions(),
        images=tuple(images),
    )
    index.write(draft)
    if hosts.number == 0:  # the last images may be those of other workers than the one that has told of its own
        emit(Item(done=len(images), of=len(images)))
    replace_folder(draft, environment.model, index.file)


def _settings(environment: Environment) -> BatchDrawing:
    """Return the job's settings."""
    settings = from_hyperparameters(environment.hyperparameters())
    if not isinstance(settings, BatchDrawing):
        raise TypeError(f"the hyperparameters are those of {settings.recipe_name()}")
    return settings


def _channel(environment: Environment, name: str) -> Path:
    """Return the folder of a channel that every batch has."""
    from entrypoints.runtime.failures import TrainingError

    folder = environment.channel(name)
    if folder is None:
        message = f"The channel {name} did not reach the job."
        raise TrainingError("settings", message, "draw the batch again, with --restart")
    return folder


def _device(environment: Environment, worker: Worker) -> "torch.device":
    """Return the device of a worker, whose arithmetic is made repeatable: a worker that resumes draws the same bytes.

    Raises TrainingError for an instance whose GPU cannot be used.
    """
    import torch

    from entrypoints.runtime.machine import require_gpu

    hosts = environment.hosts()
    if environment.root == DEFAULT_ROOT and hosts.has_gpu:
        require_gpu(hosts.instance_type)
    count = torch.cuda.device_count()
    torch.use_deterministic_algorithms(True, warn_only=count > 0)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if count:
        return torch.device("cuda", worker.device % count)
    return torch.device("cpu")


def _base_folder(environment: Environment, settings: BatchDrawing) -> tuple[Path, str | None]:
    """Return the folder of the base model and its commit on the Hub, if it is from there."""
    folder = environment.channel(BASE_MODEL_CHANNEL)
    if folder is not None:
        return folder, settings.base_revision
    from entrypoints.models.hub import fetch_pinned

    return fetch_pinned(settings.base_model, settings.base_revision, environment.checkpoints)


def _load(
    environment: Environment,
    settings: BatchDrawing,
    device: "torch.device",
) -> "BaseModel":
    """Load the base model, without any adapter."""
    from entrypoints.models.loading import load_base_model

    folder, revision = _base_folder(environment, settings)
    return load_base_model(folder, settings.base_model, revision, device, with_clip=False)


def _reference(environment: Environment, settings: BatchDrawing) -> BaseModelReference:
    """Return what the base model is called, also where nothing was left to draw and none was loaded."""
    folder, revision = _base_folder(environment, settings)
    return BaseModelReference(
        id=settings.base_model,
        revision=revision,
        fingerprint=files_sha256(folder, weight_files(folder)),
        family=family_in(folder / INDEX_FILE, settings.base_model).name,
    )


def _require_drawable(base: "BaseModel", samples: Sequence[Sample]) -> None:
    """Raise TrainingError when the base model cannot take the steps of one of all samples; warn of prompts cut off.

    A model that lies with the client was asked for its tokens there.
    """
    from entrypoints.models.sampling import require_steps

    ways: dict[tuple[int, SchedulerName | None], None] = {}
    for sample in samples:
        ways[sample.steps, sample.scheduler] = None
    for steps, scheduler in ways:
        with _scheduled(base, scheduler):
            require_steps(base, steps, "steps=")
    if is_hub_id(base.reference.id):
        _warn_of_length(base, samples)


def _warn_of_length(base: "BaseModel", samples: Sequence[Sample]) -> None:
    """Warn of the first prompts whose ends the text encoder does not read."""
    from entrypoints.models.tokens import tokenizers_of

    named: dict[str, str] = {}
    for sample in samples:
        named.setdefault(sample.prompt, f"the prompt of {sample.name}")
    texts = []
    for prompt, name in named.items():
        texts.append((name, prompt))
    found = length_problems(tokenizers_of(base), texts, None)
    for problem in found.warnings[:_MOST_WARNINGS]:
        emit(Warned(message=problem.render()))
    more = len(found.warnings) - _MOST_WARNINGS
    if more > 0:
        message = f"{counted(more, 'more prompt')}: longer than the text encoder reads"
        emit(Warned(message=message))


@contextmanager
def _scheduled(base: "BaseModel", name: SchedulerName | None) -> Iterator[None]:
    """Have a base model take steps by a scheduler; its own is put back after that."""
    from entrypoints.models.sampling import use_scheduler

    own = base.pipeline.scheduler
    if name is not None:
        use_scheduler(base, name)
    try:
        yield
    finally:
        base.pipeline.scheduler = own


def _kept_folder(environment: Environment) -> Path:
    """Return where images are kept until their host leaves all of them."""
    return environment.checkpoints / IMAGES_FOLDER


def _is_drawn(batch: Sequence[Sample], folder: Path) -> bool:
    """Whether all images of a batch are kept and whole: it is drawn as a whole, so that its images stay the same."""
    for sample in batch:
        path = _kept(folder, sample)
        if not _is_whole(path, sample.size):
            return False
    return True


def _kept(folder: Path, sample: Sample) -> Path:
    """Return where an image is kept."""
    return folder / f"{sample.id}.png"


def _is_whole(path: Path, size: int) -> bool:
    """Whether a file is an image. A copy of the checkpoints may be cut off."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.size != (size, size):
                return False
            image.load()
    except (OSError, ValueError, SyntaxError):  # Pillow raises a SyntaxError for a broken PNG
        return False
    return True


def _keep(image: "Image.Image", path: Path) -> None:
    """Write an image that is whole or absent."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    image.save(draft, format="PNG")
    draft.replace(path)


def _copy(source: Path, path: Path) -> None:
    """Give a file another name, or copy it to another disk: a checkpoint that is moved is lost to a retry."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


if __name__ == "__main__":
    process.run(lambda: main(sys.argv[1:]))
