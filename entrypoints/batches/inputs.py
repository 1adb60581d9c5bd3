"""What a job that draws a batch reads: its settings, its samples, the base model, and the device that it draws on."""

from pathlib import Path
from typing import TYPE_CHECKING

from entrypoints.batches.worker import Worker
from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.batch import SAMPLES_CHANNEL, BatchDrawing, BatchSamples
from orchestrator.contract.environment import BASE_MODEL_CHANNEL, DEFAULT_ROOT, Environment
from orchestrator.contract.families import INDEX_FILE, family_in
from orchestrator.contract.model_layout import files_sha256, weight_files
from orchestrator.contract.recipe import from_hyperparameters

if TYPE_CHECKING:
    import torch

    from entrypoints.models.base import BaseModel


def settings_of(environment: Environment) -> BatchDrawing:
    """Return the job's settings."""
    settings = from_hyperparameters(environment.hyperparameters())
    if not isinstance(settings, BatchDrawing):
        raise TypeError(f"the hyperparameters are those of {settings.recipe_name()}")
    return settings


def samples_of(environment: Environment) -> BatchSamples:
    """Return all samples of the batch; raises TrainingError when their channel did not reach the job."""
    from entrypoints.runtime.failures import TrainingError

    folder = environment.channel(SAMPLES_CHANNEL)
    if folder is None:
        message = f"The channel {SAMPLES_CHANNEL} did not reach the job."
        raise TrainingError("settings", message, "draw the batch again, with --restart")
    return BatchSamples.read(folder)


def device_of(environment: Environment, worker: Worker) -> "torch.device":
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


def base_folder(environment: Environment, settings: BatchDrawing) -> tuple[Path, str | None]:
    """Return the folder of the base model and its commit on the Hub, if it is from there."""
    folder = environment.channel(BASE_MODEL_CHANNEL)
    if folder is not None:
        return folder, settings.base_revision
    from entrypoints.models.hub import fetch_pinned

    return fetch_pinned(settings.base_model, settings.base_revision, environment.checkpoints)


def load_base(
    environment: Environment,
    settings: BatchDrawing,
    device: "torch.device",
) -> "BaseModel":
    """Load the base model, without any adapter."""
    from entrypoints.models.loading import load_base_model

    folder, revision = base_folder(environment, settings)
    return load_base_model(folder, settings.base_model, revision, device, with_clip=False)


def reference_of(environment: Environment, settings: BatchDrawing) -> BaseModelReference:
    """Return what the base model is called, also where nothing was left to draw and none was loaded."""
    folder, revision = base_folder(environment, settings)
    return BaseModelReference(
        id=settings.base_model,
        revision=revision,
        fingerprint=files_sha256(folder, weight_files(folder)),
        family=family_in(folder / INDEX_FILE, settings.base_model).name,
    )
