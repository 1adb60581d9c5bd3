"""A worker's share of a batch: what of it is missing is drawn, batch by batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from entrypoints.batches.inputs import device_of, load_base, samples_of, settings_of
from entrypoints.batches.kept import is_drawn, keep, kept_file, kept_folder
from entrypoints.batches.progress import Progress
from entrypoints.batches.worker import Worker
from entrypoints.runtime import libraries, process
from entrypoints.runtime.stop import StopFlag
from orchestrator.contract.batch import ADAPTERS_CHANNEL, batches_of, share_of
from orchestrator.contract.batch_result import Sample
from orchestrator.contract.environment import Environment
from orchestrator.contract.events import Phase, Warned, emit, mute
from orchestrator.contract.families import is_hub_id
from orchestrator.contract.generation import SchedulerName
from orchestrator.contract.plurals import counted
from orchestrator.contract.text_length import length_problems

if TYPE_CHECKING:
    from PIL import Image

    from entrypoints.models.base import BaseModel

_MOST_WARNINGS = 5
"""Prompts that are warned of one by one."""


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
    settings = settings_of(environment)
    device = device_of(environment, worker)
    every = samples_of(environment)
    batches = batches_of(every.samples, gpu=device.type != "cpu")
    folder = kept_folder(environment)
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    for batch in share_of(batches, worker.number, worker.workers):
        if not is_drawn(batch, folder):
            missing.append(batch)

    def load() -> "BaseModel":
        return load_base(environment, settings, device)

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
                keep(image, kept_file(folder, sample))
            progress.tell()


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
        size=first.width,
        height=first.height,
        negative_prompt=first.negative_prompt,
    )
    requests = []
    for sample in batch:
        requests.append(DrawRequest(sample.prompt, sample.seed))
    with _scheduled(base, first.scheduler):
        return draw_batch(base, requests, drawing, stop.check)


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
