"""What a submit would start: pictures looked at, inputs stored or only named, and the request. Starts nothing."""

from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from orchestrator import datasets
from orchestrator.bundle import store_bundle
from orchestrator.contract.digest import hash_files, tree_sha256
from orchestrator.contract.families import model_files
from orchestrator.contract.problem import Problem
from orchestrator.contract.words import holds_word
from orchestrator.credentials import insist_on_no_secret
from orchestrator.errors import DatasetError
from orchestrator.hashes import HashMemory
from orchestrator.placement import Placement, place, stand_ins
from orchestrator.requests import JobInputs, Place, Request, adapter_uri, job_name, training_job
from orchestrator.settings import AwsSettings, Settings, owner
from orchestrator.specs import JobSpec
from orchestrator.storage import TreeStore


class Plan(BaseModel):
    """What a submit would start."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    request: Request
    """The CreateTrainingJob request."""
    warnings: tuple[Problem, ...]
    """What is odd about the pictures or the place, and no reason to refuse."""
    placement: Placement | None = None
    """Instance, limits and price; None on this machine."""
    stand_ins: tuple["Plan", ...] = ()
    """The same job on other instances, should this one not be to be had: the cheapest first."""


def plan_here(spec: JobSpec, settings: Settings, store: TreeStore) -> Plan:
    """Plan a job of this machine; raises DatasetError when the pictures cannot be trained on."""
    stored = _store(spec, settings, store)
    base_model = spec.base_model_folder
    inputs = JobInputs(
        **stored.uris,
        base_model=base_model.as_uri() if base_model else None,
        output=(settings.adapters / (spec.name or job_name(spec, stored.identity))).as_uri(),
    )
    return Plan(request=training_job(spec, inputs), warnings=stored.warnings)


def plan_on_sagemaker(spec: JobSpec, settings: Settings, account: AwsSettings, store: TreeStore) -> Plan:
    """Plan a job of an account; raises SpecError or DatasetError, before anything is stored, when it cannot run.

    With a store that only names places this makes no call at all.
    """
    placement = place(spec, account.region)
    insist_on_no_secret(spec.model_dump(mode="json", exclude={"images"}))
    stored = _store(spec, settings, store)
    folder = spec.base_model_folder
    inputs = JobInputs(
        **stored.uris,
        base_model=_store_model(store, folder) if folder else None,
        output=adapter_uri(account, spec, stored.identity),
    )
    first, *others = (
        Plan(
            request=training_job(spec, inputs, Place(account=account, placement=placed, owner=owner())),
            warnings=(*stored.warnings, *placed.warnings),
            placement=placed,
        )
        for placed in (placement, *stand_ins(spec, placement))
    )
    return first.model_copy(update={"stand_ins": tuple(others)})


class _Stored(NamedTuple):
    identity: str
    training: str
    bundle: str
    warnings: tuple[Problem, ...]

    @property
    def uris(self) -> dict[str, str]:
        return {"identity": self.identity, "training": self.training, "bundle": self.bundle}


def _store(spec: JobSpec, settings: Settings, store: TreeStore) -> _Stored:
    dataset = datasets.inspect(spec.images, resolution=spec.recipe.resolution)
    _insist_on_word(dataset, spec.recipe.caption_word)
    with store.staging() as folder:
        datasets.prepare(dataset, folder)
        dataset_sha256 = tree_sha256(hash_files(folder))
        training = store.put_tree("data", folder)
    identity = spec.identity(dataset_sha256, HashMemory(settings.cache / "hashes").digest)
    return _Stored(identity, training, store_bundle(store), dataset.warnings)


def _store_model(store: TreeStore, model: Path) -> str:
    """Store what a base model consists of and nothing else that lies in its folder."""
    with store.staging() as folder:
        for path in model_files(model):
            link = folder / path.relative_to(model)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        return store.put_tree("models", folder)


def _insist_on_word(dataset: datasets.Dataset, word: str | None) -> None:
    """Raise DatasetError for captions from which the word that is to be learnt is missing: it would never be seen."""
    if word is None:
        return
    problems = [
        Problem(where=str(picture.file), what=f'its caption does not hold "{word}"', fix="add the word to the caption")
        for picture in dataset.pictures
        if picture.caption is not None and not holds_word(picture.caption, word)
    ]
    if problems:
        next_step = "mend the captions or take them out of the folder, then submit again"
        raise DatasetError("The captions would not teach the new word.", next_step=next_step, problems=problems)
