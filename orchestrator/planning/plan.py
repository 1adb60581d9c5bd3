"""Plan a job: the request, and the trees it reads, which are not stored yet. Makes no call."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.command_line import command
from orchestrator.contract.datasets import IMAGES
from orchestrator.contract.problem import Problem
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.models.mirrored import MirrorAnswer, MirroredModel
from orchestrator.models.tree import model_tree, scorer_tree
from orchestrator.planning.bundle import bundle_tree
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.planning.placement import Placement, find_placement, stand_ins
from orchestrator.planning.texts import check_captions, check_settings
from orchestrator.planning.training_request import JobInputs, SageMakerContext, adapter_uri, job_name, training_job
from orchestrator.requests import Request
from orchestrator.resources import SAMPLE_IMAGES
from orchestrator.secret_scan import looks_like, require_no_secret
from orchestrator.settings import OWNER_VARIABLE, AwsSettings, Settings, owner
from orchestrator.specs.base_model import Builtin, Hub
from orchestrator.specs.compute import SHORTEST_MINUTES
from orchestrator.specs.job import JobSpec
from orchestrator.storage.hash_cache import HashCache
from orchestrator.storage.store import Store
from orchestrator.storage.tree import Tree
from orchestrator.storage.uris import file_uri, s3_uri


class Plan(BaseModel):
    """What a submit would start."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    request: Request
    """The CreateTrainingJob request."""
    trees: tuple[Tree, ...] = ()
    """What the job reads: to be stored before it starts. The URIs in the request hold their hashes."""
    warnings: tuple[Problem, ...] = ()
    """Problems of inputs, model and instance that do not stop the job."""
    notes: tuple[str, ...] = ()
    """What the job derives from its settings, for a person to look at before it starts."""
    placement: Placement | None = None
    """Instance, limits and price; None for a local job."""
    stand_ins: tuple["Plan", ...] = ()
    """The same job on other instance types, for when this one has no capacity; the cheapest first."""
    mirrored: MirroredModel | None = None
    """The copy of a Hub model that the job reads; None for any other model, and when the job downloads it itself."""

    def after_spending(self, usd: Decimal) -> "Plan | None":
        """Return the plan with its time limit lowered by what `usd` pays for; None when the rest is too short to train.

        A retry then costs no more, together with the `usd` already spent, than the plan was allowed to.
        """
        if self.placement is None or not usd:
            return self
        cost = self.placement.cost
        if cost.usd is None or cost.usd_per_hour is None:  # no limit was promised
            return self
        hours_spent = usd / cost.usd_per_hour
        seconds = cost.runtime_seconds - math.ceil(hours_spent * 3600)
        if seconds < SHORTEST_MINUTES * 60:
            return None
        cost = cost.model_copy(update={"usd": cost.usd - usd, "runtime_seconds": seconds})
        limits = {**self.request["StoppingCondition"], "MaxRuntimeInSeconds": seconds}
        request = {**self.request, "StoppingCondition": limits}
        placement = self.placement.model_copy(update={"cost": cost})
        return self.model_copy(update={"request": request, "placement": placement})


def store_trees(plan: Plan, store: Store) -> None:
    """Store what the job reads. Idempotent: what the store holds is not sent again."""
    for tree in plan.trees:
        store.put_tree(tree)


def plan_here(spec: JobSpec, settings: Settings, prepared: PreparedInputs) -> Plan:
    """Plan a local job; raises SpecError or DatasetError with all problems when it cannot run.

    A base model and a scorer in a folder are read from there, without a copy.
    """
    errors: list[OrchestratorError] = []
    warnings = [*_warnings(spec, prepared), *_checked(spec, prepared, errors)]
    _raise_all(errors, warnings)
    model_sha256 = _sha256(_model_tree(spec, settings))
    scorer = _scorer_tree(spec, settings)
    code = bundle_tree(BundleKind.TRAINING)
    identity = spec.identity(prepared.sha256, model_sha256, _sha256(scorer))
    data = {channel: file_uri(settings.store, tree.name) for channel, tree in prepared.trees.items()}
    base_model = None
    if not isinstance(spec.base_model, Hub):
        base_model = spec.base_model.folder.as_uri()
    adapter = settings.adapters / (spec.name or job_name(spec, identity))
    inputs = JobInputs(
        identity=identity,
        data=data,
        base_model=base_model,
        scorer=None if spec.scorer is None else spec.scorer.as_uri(),
        bundle=file_uri(settings.store, code.name),
        output=adapter.as_uri(),
    )
    return Plan(
        request=training_job(spec, inputs),
        trees=(*prepared.trees.values(), code),
        warnings=tuple(warnings),
        notes=tuple(spec.recipe.notes),
    )


def plan_on_sagemaker(
    spec: JobSpec,
    settings: Settings,
    account: AwsSettings,
    prepared: PreparedInputs,
    mirror: MirrorAnswer,
) -> Plan:
    """Plan a job on SageMaker; raises SpecError or DatasetError with all problems when it cannot run.

    A job whose Hub model is mirrored reads the copy, and its hyperparameters name the commit of the copy. The identity
    of the job does not depend on that: a submit before the copy was made and one after it are the same job, and a job
    that ended early resumes with the request it was created with.
    """
    placement, warnings = _checked_placement(spec, account, prepared, mirror)
    code = bundle_tree(BundleKind.TRAINING)
    trees = [*prepared.trees.values(), code]
    data = {channel: s3_uri(account.bucket, tree.name) for channel, tree in prepared.trees.items()}
    model = _model_tree(spec, settings)
    scorer = _scorer_tree(spec, settings)
    trees += [tree for tree in (model, scorer) if tree is not None]
    base_model = _uri(account, model)
    commit = None
    if mirror.model is not None:
        base_model = mirror.model.uri
        commit = mirror.model.commit
    identity = spec.identity(prepared.sha256, _sha256(model), _sha256(scorer))
    inputs = JobInputs(
        identity=identity,
        data=data,
        base_model=base_model,
        commit=commit,
        scorer=_uri(account, scorer),
        bundle=s3_uri(account.bucket, code.name),
        output=adapter_uri(account, spec, identity),
    )
    warnings = (*warnings, *_mirror_warnings(spec, mirror))
    plans = []
    for placed in (placement, *stand_ins(spec, placement)):
        context = SageMakerContext(account=account, placement=placed, owner=owner())
        plan = Plan(
            request=training_job(spec, inputs, context),
            trees=tuple(trees),
            warnings=(*warnings, *placed.warnings),
            notes=tuple(spec.recipe.notes),
            placement=placed,
            mirrored=mirror.model,
        )
        plans.append(plan)
    first, *others = plans
    return first.model_copy(update={"stand_ins": tuple(others)})


def _checked_placement(
    spec: JobSpec,
    account: AwsSettings,
    prepared: PreparedInputs,
    mirror: MirrorAnswer,
) -> tuple[Placement, tuple[Problem, ...]]:
    """Return the placement of a job whose spec and inputs pass every check, and its warnings.

    Raises one error with all problems.
    """
    errors: list[OrchestratorError] = []
    with _collecting(errors):
        placement = find_placement(spec, account.region)
    with _collecting(errors):
        require_no_secret(_captions(prepared))
    warnings = (*_warnings(spec, prepared), *_checked(spec, prepared, errors))
    with _collecting(errors):
        require_no_secret(_request_texts(spec, account))
    with _collecting(errors):
        _check_isolation(spec, mirror)
    _raise_all(errors, warnings)
    return placement, warnings


def _checked(spec: JobSpec, prepared: PreparedInputs, errors: list[OrchestratorError]) -> tuple[Problem, ...]:
    """Check the images, captions, prompts and words of a job; add what is wrong, and return what is doubtful."""
    doubts: list[Problem] = []
    if prepared.error is not None:
        errors.append(prepared.error)
    with _collecting(errors):
        doubts += check_settings(spec)
    with _collecting(errors):
        doubts += check_captions(spec, prepared)
    return tuple(doubts)


def _raise_all(errors: Sequence[OrchestratorError], warnings: Sequence[Problem]) -> None:
    """Raise one error with all problems, and with the warnings, so that they need no second attempt to be seen."""
    if not errors:
        return
    error = _merged(errors)
    for warning in warnings:
        if not looks_like(warning.render()):  # the error may be about a secret in the name of a file
            error.add_warnings([warning])
    raise error


@contextmanager
def _collecting(errors: list[OrchestratorError]) -> Iterator[None]:
    try:
        yield
    except OrchestratorError as error:
        errors.append(error)


def _merged(errors: Sequence[OrchestratorError]) -> OrchestratorError:
    """Return an error of the first one's class with the messages and the problems of all."""
    first = errors[0]
    if len(errors) == 1:
        return first
    messages = []
    problems: list[Problem] = []
    for error in errors:
        messages.append(error.message.rstrip(".") + ".")
        problems += error.problems
    return type(first)(
        " ".join(messages),
        next_step=first.next_step,
        problems=problems,
    )


def _check_isolation(spec: JobSpec, mirror: MirrorAnswer) -> None:
    """Raise SpecError for a job without network access that has to download its base model."""
    source = spec.base_model
    if not isinstance(source, Hub) or not mirror.asked or mirror.model is not None:
        return
    if spec.compute.network_isolation:
        problem = Problem(
            where="compute.network_isolation",
            what=f'the job has to download "{source.id}", which an isolated container cannot',
            fix="copy the model into the bucket",
        )
        raise SpecError(
            "The job cannot run in network isolation; nothing was started.",
            problems=[problem],
            next_step=f"{_mirror_command(source)}  # then submit again",
        )


def _mirror_warnings(spec: JobSpec, mirror: MirrorAnswer) -> tuple[Problem, ...]:
    """Return a warning when the bucket was not asked for a copy of the Hub model, as in a dry run."""
    source = spec.base_model
    if not isinstance(source, Hub) or mirror.asked:
        return ()
    without_copy = "the job downloads the model from the Hugging Face Hub"
    if spec.compute.network_isolation:
        without_copy = "it is refused, because the job runs in network isolation"
    warning = Problem(
        where=f'base_model "{source.id}"',
        what=f"this plan did not look for a copy in the bucket; a submit does, and without one {without_copy}",
        fix=f"unless you mirrored it: {_mirror_command(source)}",
    )
    return (warning,)


def _mirror_command(source: Hub) -> str:
    """Return the command that copies a Hub model into the bucket."""
    words = ["models", "mirror", source.id]
    if source.revision is not None:
        words += ["--revision", source.revision]
    return command(*words)


def _model_tree(spec: JobSpec, settings: Settings) -> Tree | None:
    """Return the files of a base model on this machine; None for a Hub model."""
    if isinstance(spec.base_model, Hub):
        return None
    hashes = HashCache(settings.cache / "hashes")
    return model_tree(spec.base_model.folder, hashes.digest)


def _scorer_tree(spec: JobSpec, settings: Settings) -> Tree | None:
    """Return the files of a scorer; None for a job that is measured by its base model's own CLIP."""
    if spec.scorer is None:
        return None
    hashes = HashCache(settings.cache / "hashes")
    return scorer_tree(spec.scorer, hashes.digest)


def _sha256(tree: Tree | None) -> str | None:
    return None if tree is None else tree.sha256


def _uri(account: AwsSettings, tree: Tree | None) -> str | None:
    return None if tree is None else s3_uri(account.bucket, tree.name)


def _warnings(spec: JobSpec, prepared: PreparedInputs) -> tuple[Problem, ...]:
    warnings = [*spec.warnings, *prepared.warnings]
    images = spec.inputs.get(IMAGES)
    trains_little = isinstance(spec.base_model, Builtin) and not spec.recipe.trains_all_weights
    if trains_little and images not in (None, SAMPLE_IMAGES):
        photos = Problem(
            where="base_model",
            what="the built-in model was trained on drawn shapes alone: of photos it learns colours better than forms",
            fix="name another model with --base-model, or train all of it with dreambooth -s tuner=full, as in README",
        )
        warnings.append(photos)
    return tuple(warnings)


def _captions(prepared: PreparedInputs) -> Mapping[str, Any]:
    """Return the captions by file: they go to the bucket with the images."""
    captions = {}
    if prepared.dataset is not None:
        for image in prepared.dataset.images:
            captions[str(image.file)] = image.caption
    return {"pictures": captions}


def _request_texts(spec: JobSpec, account: AwsSettings) -> Mapping[str, Any]:
    """Return what a person wrote and others can read in the request and its tags."""
    return {
        **spec.model_dump(mode="json", exclude={"inputs", "scorer"}),
        OWNER_VARIABLE: owner(),
        "training_image": account.training_image,
    }
