"""What a submit would start: pictures looked at, inputs stored or only named, and the request. Starts nothing."""

import math
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from orchestrator import datasets
from orchestrator.contract.digest import hash_files, tree_sha256
from orchestrator.contract.problem import Problem
from orchestrator.contract.recipe import BUILTIN
from orchestrator.contract.words import holds_word
from orchestrator.errors import DatasetError, OrchestratorError
from orchestrator.models.mirror import MirroredModel, find_mirrored, store_model
from orchestrator.planning.bundle import store_bundle
from orchestrator.planning.placement import Placement, place, stand_ins
from orchestrator.planning.training_request import (
    JobInputs,
    Place,
    adapter_uri,
    insist_on_model,
    job_name,
    mirror_command,
    training_job,
)
from orchestrator.requests import Request
from orchestrator.resources import SAMPLE_IMAGES
from orchestrator.secret_scan import require_no_secret
from orchestrator.settings import OWNER_VARIABLE, AwsSettings, Settings, owner
from orchestrator.specs.compute import SHORTEST_MINUTES
from orchestrator.specs.job import JobSpec
from orchestrator.storage import DryS3Store, Store, TreeStore
from orchestrator.storage.hash_cache import HashMemory

Made = TypeVar("Made")


class Shared:
    """What jobs that are planned together have in common: it is looked at and stored for the first of them."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def once(self, make: Callable[..., Made], *words: Any) -> Made:  # anything that can be a key
        """Return what `make` makes of the words, and the same again when they are the same."""
        if (make, words) not in self._made:
            self._made[make, words] = make(*words)
        made: Made = self._made[make, words]
        return made


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
    mirrored: MirroredModel | None = None
    """The copy of a Hub model that the job reads; None when it has a model of another kind, or fetches it itself."""

    def after_spending(self, usd: Decimal) -> "Plan | None":
        """Return the plan with a limit that leaves so much of its worst case unspent; None when no run is left."""
        if self.placement is None or not usd:
            return self
        cost = self.placement.cost
        seconds = cost.runtime_seconds - math.ceil(usd / cost.usd_per_hour * 3600)
        if seconds < SHORTEST_MINUTES * 60:
            return None
        cost = cost.model_copy(update={"usd": cost.usd - usd, "runtime_seconds": seconds})
        limits = {**self.request["StoppingCondition"], "MaxRuntimeInSeconds": seconds}
        request = {**self.request, "StoppingCondition": limits}
        placement = self.placement.model_copy(update={"cost": cost})
        return self.model_copy(update={"request": request, "placement": placement})


def plan_here(spec: JobSpec, settings: Settings, store: TreeStore, shared: Shared | None = None) -> Plan:
    """Plan a job of this machine; raises DatasetError when the pictures cannot be trained on."""
    shared = shared or Shared()
    stored = _store(spec, _inspected(spec, shared), settings, store, shared)
    base_model = spec.base_model_folder
    inputs = JobInputs(
        **stored.uris,
        base_model=base_model.as_uri() if base_model else None,
        output=(settings.adapters / (spec.name or job_name(spec, stored.identity))).as_uri(),
    )
    return Plan(request=training_job(spec, inputs), warnings=stored.warnings)


def plan_on_sagemaker(
    spec: JobSpec, settings: Settings, account: AwsSettings, store: Store | DryS3Store, shared: Shared | None = None
) -> Plan:
    """Plan a job of an account; raises SpecError or DatasetError, before anything is stored, when it cannot run.

    With a store that only names places this makes no call at all, and so cannot know what is mirrored.

    A job whose Hub model is mirrored reads the copy, and its hyperparameters name the commit of the copy. The job's
    identity is that of what was asked for, mirrored or not: the same submit stays the same job when a copy was made
    between the two, and a job that ended early goes on with the request it began with.
    """
    shared = shared or Shared()
    placement, dataset = _checked(spec, account, shared)
    mirrored, warnings = _find_model(spec, store, shared)
    stored = _store(spec, dataset, settings, store, shared)
    inputs = JobInputs(
        **stored.uris,
        base_model=_model_uri(spec, store, mirrored, shared),
        output=adapter_uri(account, spec, stored.identity),
    )
    first, *others = (
        Plan(
            request=training_job(
                _pinned(spec, mirrored), inputs, Place(account=account, placement=placed, owner=owner())
            ),
            warnings=(*stored.warnings, *placed.warnings, *warnings),
            placement=placed,
            mirrored=mirrored,
        )
        for placed in (placement, *stand_ins(spec, placement))
    )
    return first.model_copy(update={"stand_ins": tuple(others)})


def _checked(spec: JobSpec, account: AwsSettings, shared: Shared) -> tuple[Placement, datasets.Dataset]:
    """Place the job, look at its pictures and for secrets; raises one error with all that is wrong."""
    errors: list[OrchestratorError] = []
    with _collecting(errors):
        placement = place(spec, account.region)
    with _collecting(errors):
        dataset = _inspected(spec, shared)
        require_no_secret(_texts_of(dataset))
    with _collecting(errors):
        require_no_secret(_texts_of_request(spec, account))
    if errors:
        raise _all_in_one(errors)
    return placement, dataset


@contextmanager
def _collecting(errors: list[OrchestratorError]) -> Iterator[None]:
    try:
        yield
    except OrchestratorError as error:
        errors.append(error)


def _all_in_one(errors: list[OrchestratorError]) -> OrchestratorError:
    """Return the first error with the words and the problems of all."""
    first = errors[0]
    if len(errors) == 1:
        return first
    message = " ".join(f"{error.message.rstrip('.')}." for error in errors)
    return type(first)(message, next_step=first.next_step, problems=[one for error in errors for one in error.problems])


def _find_model(
    spec: JobSpec, store: Store | DryS3Store, shared: Shared
) -> tuple[MirroredModel | None, tuple[Problem, ...]]:
    """Return the mirrored copy of a Hub model, and what is not known of it; raises SpecError when it must be there."""
    if spec.base_model_folder is not None:
        return None, ()
    if isinstance(store, DryS3Store):
        what = "is read from its copy in the bucket; without one, which a submit finds out, "
        what += (
            "the job is refused" if spec.compute.network_isolation else "the job fetches it from the Hugging Face Hub"
        )
        return None, (Problem(where=f'base_model "{spec.recipe.base_model}"', what=what, fix=mirror_command(spec)),)
    mirrored = shared.once(find_mirrored, store, spec.recipe.base_model, spec.recipe.base_revision)
    insist_on_model(spec, brings_model=mirrored is not None)
    return mirrored, ()


def _model_uri(spec: JobSpec, store: Store | DryS3Store, mirrored: MirroredModel | None, shared: Shared) -> str | None:
    """Return where the base model of a job is, or None when the job fetches it from the Hub itself."""
    if (folder := spec.base_model_folder) is not None:
        return shared.once(store_model, store, folder)
    if mirrored is not None:
        return mirrored.uri
    # only a copy will do for a job that is to be isolated, and a store that cannot be asked may have one
    return store.uri("models/the-mirrored-copy/") if spec.compute.network_isolation else None


def _pinned(spec: JobSpec, mirrored: MirroredModel | None) -> JobSpec:
    """Return the spec with the commit of the copy it reads: the channel itself does not say what it is."""
    if mirrored is None:
        return spec
    return spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"base_revision": mirrored.commit})})


class _Stored(NamedTuple):
    identity: str
    training: str
    bundle: str
    warnings: tuple[Problem, ...]

    @property
    def uris(self) -> dict[str, str]:
        return {"identity": self.identity, "training": self.training, "bundle": self.bundle}


def _inspected(spec: JobSpec, shared: Shared) -> datasets.Dataset:
    dataset = shared.once(_inspect, spec.images, spec.recipe.resolution)
    _insist_on_word(dataset, spec.recipe.caption_word)
    return dataset


def _doubts(spec: JobSpec) -> tuple[Problem, ...]:
    """Return what is odd about pictures and model together: the built-in one has never seen a photograph."""
    if spec.recipe.base_model != BUILTIN or spec.images == SAMPLE_IMAGES:
        return ()
    what = "the built-in model knows drawn shapes and no photographs: of those it learns colours more than forms"
    fix = "name another with --base-model, or train all of it, as the README says"
    return (Problem(where="base_model", what=what, fix=fix),)


def _inspect(images: Path, resolution: int) -> datasets.Dataset:
    return datasets.inspect(images, resolution=resolution)


def _texts_of(dataset: datasets.Dataset) -> dict[str, Any]:
    """Return what a person wrote of the pictures; captions lie beside them in the bucket."""
    return {"pictures": {str(picture.file): picture.caption for picture in dataset.pictures}}


def _texts_of_request(spec: JobSpec, account: AwsSettings) -> dict[str, Any]:
    """Return what a person wrote and others can read later in the request and its tags."""
    return {
        **spec.model_dump(mode="json", exclude={"images"}),
        OWNER_VARIABLE: owner(),
        "training_image": account.training_image,
    }


def _store(spec: JobSpec, dataset: datasets.Dataset, settings: Settings, store: TreeStore, shared: Shared) -> _Stored:
    dataset_sha256, training = shared.once(_store_pictures, store, dataset)
    identity = spec.identity(dataset_sha256, HashMemory(settings.cache / "hashes").digest)
    return _Stored(identity, training, shared.once(store_bundle, store), (*dataset.warnings, *_doubts(spec)))


def _store_pictures(store: TreeStore, dataset: datasets.Dataset) -> tuple[str, str]:
    """Store what training gets of the pictures; return its hash and URI."""
    with store.staging() as folder:
        datasets.prepare(dataset, folder)
        return tree_sha256(hash_files(folder)), store.put_tree("data", folder)


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
