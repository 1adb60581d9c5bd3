"""Plan an evaluation: the settings of its job, and what the job reads. All that can be wrong is found here, unpaid."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator import datasets
from orchestrator.adapters.usage import drawing_settings, own_word
from orchestrator.contract.adapter import MANIFEST_FILE, AdapterManifest
from orchestrator.contract.datasets import CAPTIONS_FILE
from orchestrator.contract.evaluation import (
    ADAPTER_CHANNEL,
    DINO_CHANNEL,
    PROMPTS_CHANNEL,
    REFERENCE_CHANNEL,
    Evaluation,
    EvaluationPrompts,
)
from orchestrator.contract.model_layout import files_sha256, weight_files
from orchestrator.contract.problem import Problem
from orchestrator.contract.text_length import length_problems
from orchestrator.datasets import Dataset
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.planning.held_out import REFERENCE_OPTION, HeldOut
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.planning.texts import holds_secret, tokenizers_for
from orchestrator.settings import Settings
from orchestrator.specs.base_model import Hub
from orchestrator.specs.job import JobSpec
from orchestrator.storage.hash_cache import HashCache
from orchestrator.storage.tree import Tree, tree_of_files, tree_of_folder

_DATA = "data"


def evaluation_settings(
    adapter: str,
    manifest: AdapterManifest,
    base_model: str,
    base_revision: str | None,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the fields of an `Evaluation`: the images are drawn as the adapter's recipe drew its own.

    `given` are those that a person has chosen.
    """
    drawn = drawing_settings(manifest)
    return {
        "base_model": base_model,
        "base_revision": base_revision,
        "adapter": adapter,
        "inference_steps": drawn.steps,
        "guidance_scale": drawn.guidance,
        "resolution": drawn.size,
        **given,
    }


def prepare_evaluation(
    settings: Evaluation,
    adapter: Path,
    manifest: AdapterManifest,
    prompts: EvaluationPrompts,
    *,
    reference: Path | HeldOut | None,
    dino: Path | None,
    staging: Path,
) -> PreparedInputs:
    """Write what the job reads to folders of `staging`, which has to exist until the trees of the plan are stored.

    Problems of the reference pictures are in the result, for the plan to raise with all others.
    """
    prompts.write(staging / PROMPTS_CHANNEL)
    files = {name: adapter / name for name in [*manifest.files, MANIFEST_FILE]}
    trees: dict[str, Tree] = {
        ADAPTER_CHANNEL: tree_of_files(_DATA, files),
        PROMPTS_CHANNEL: tree_of_folder(_DATA, staging / PROMPTS_CHANNEL),
    }
    if dino is not None:
        trees[DINO_CHANNEL] = tree_of_files("models", _files_of_dino(dino))
    written = prompts.model_dump(mode="json")
    if reference is None:
        return PreparedInputs(trees=trees, texts=written)
    if isinstance(reference, HeldOut):
        trees[REFERENCE_CHANNEL] = tree_of_folder(_DATA, reference.folder)
        return PreparedInputs(trees=trees, texts=written, dataset=reference.dataset)
    folder = staging / REFERENCE_CHANNEL
    try:
        dataset = datasets.prepare(
            reference,
            folder,
            resolution=settings.resolution,
            fewest=None,
            option=REFERENCE_OPTION,
        )
    except OrchestratorError as error:
        return PreparedInputs(trees=trees, texts=written, error=error)
    (folder / CAPTIONS_FILE).unlink(missing_ok=True)
    trees[REFERENCE_CHANNEL] = tree_of_folder(_DATA, folder)
    return PreparedInputs(trees=trees, texts=written, dataset=_without_captions(dataset))


def require_fit(spec: JobSpec, manifest: AdapterManifest, settings: Settings) -> None:
    """Raise SpecError when the base model has other weights than the adapter was trained on.

    One of the Hub is not on this machine, and is checked by the job.
    """
    source = spec.base_model
    if isinstance(source, Hub):
        return
    hashes = HashCache(settings.cache / "hashes")
    found = files_sha256(source.folder, weight_files(source.folder), hashes.digest)
    if found == manifest.base_model.fingerprint:
        return
    raise SpecError(
        f'The adapter was trained on "{manifest.base_model.id}" with other weights than those in {source.folder}; '
        "nothing was started.",
        next_step="say where its own base model is: --base-model FOLDER",
    )


def check_prompts(spec: JobSpec, prompts: EvaluationPrompts, manifest: AdapterManifest) -> tuple[Problem, ...]:
    """Return what text encoders do not read of the prompts; raises SpecError when that is the word that was learned."""
    if holds_secret(prompts.model_dump(mode="json")):  # it is refused elsewhere, and no message may repeat it
        return ()
    lengths = length_problems(tokenizers_for(spec), prompts.texts, own_word(manifest))
    if lengths.refused:
        raise SpecError(
            "The prompts would not show what the adapter has learned; nothing was started.",
            problems=lengths.refused,
            next_step="shorten the prompts named above",
        )
    return tuple(lengths.warnings)


def require_dino(folder: Path) -> None:
    """Raise SpecError unless a folder looks like a model that transformers has saved, with safetensors."""
    problem = ""
    if not folder.is_dir():
        problem = "is no folder"
    elif not (folder / "config.json").is_file():
        problem = "has no config.json"
    elif not any(folder.glob("*.safetensors")):
        problem = "has no weights in the safetensors format"
    if problem:
        raise SpecError(
            f"{folder} {problem}; nothing was started.",
            next_step="name the folder of a ViT, DINO or DINOv2 of transformers, or leave --dino out",
        )


def _files_of_dino(folder: Path) -> dict[str, Path]:
    """Return what transformers reads of a model: no code, and nothing that is not its own."""
    paths = [*folder.glob("*.safetensors"), *folder.glob("*config.json"), *folder.glob("*.index.json")]
    return {path.name: path for path in sorted(set(paths))}


def _without_captions(dataset: Dataset) -> Dataset:
    """Return a data set whose captions, which nobody reads, are not checked either."""
    images = [image.model_copy(update={"caption": None}) for image in dataset.images]
    return dataset.model_copy(update={"images": tuple(images)})
