"""What a submit would start: the request, and the trees it reads, which are not stored yet. Makes no call."""

import math
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.datasets import IMAGES
from orchestrator.contract.problem import Problem
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.models.mirrored import MirrorAnswer, MirroredModel
from orchestrator.models.tree import model_tree
from orchestrator.planning.bundle import bundle_tree
from orchestrator.planning.inputs import PreparedInputs, check_inputs
from orchestrator.planning.placement import Placement, place, stand_ins
from orchestrator.planning.training_request import JobInputs, Place, adapter_uri, job_name, training_job
from orchestrator.requests import Request
from orchestrator.resources import SAMPLE_IMAGES
from orchestrator.secret_scan import require_no_secret
from orchestrator.settings import OWNER_VARIABLE, AwsSettings, Settings, owner
from orchestrator.specs.base_model import Builtin, Hub
from orchestrator.specs.compute import SHORTEST_MINUTES
from orchestrator.specs.job import JobSpec
from orchestrator.storage.hash_cache import HashMemory
from orchestrator.storage.store import Store
from orchestrator.storage.tree import Tree
from orchestrator.storage.uris import file_uri, s3_uri


class Plan(BaseModel):
    """What a submit would start."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    request: Request
    """The CreateTrainingJob request."""
    trees: tuple[Tree, ...] = ()
    """What the job reads and has to be in the store before it starts; the request names them by their hashes."""
    warnings: tuple[Problem, ...] = ()
    """What is odd about the pictures or the place, and no reason to refuse."""
    placement: Placement | None = None
    """Instance, limits and price; None on this machine."""
    stand_ins: tuple["Plan", ...] = ()
    """The same job on other instances, for when this one has no capacity: the cheapest first."""
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


def store_trees(plan: Plan, store: Store) -> None:
    """Store what the job reads; what is there already is not sent again."""
    for tree in plan.trees:
        store.put_tree(tree)


def plan_here(spec: JobSpec, settings: Settings, prepared: PreparedInputs) -> Plan:
    """Plan a job of this machine; raises DatasetError when the pictures cannot be trained on.

    A base model in a folder is read where it lies.
    """
    check_inputs(prepared, spec.recipe.caption_word)
    model = _model_tree(spec, settings)
    code = bundle_tree(BundleKind.TRAINING)
    identity = spec.identity(prepared.sha256, model.sha256 if model else None)
    data = {channel: file_uri(settings.store, tree.name) for channel, tree in prepared.trees.items()}
    base_model = None
    if not isinstance(spec.base_model, Hub):
        base_model = spec.base_model.folder.as_uri()
    adapter = settings.adapters / (spec.name or job_name(spec, identity))
    inputs = JobInputs(
        identity=identity,
        data=data,
        base_model=base_model,
        bundle=file_uri(settings.store, code.name),
        output=adapter.as_uri(),
    )
    trees = (*prepared.trees.values(), code)
    return Plan(
        request=training_job(spec, inputs),
        trees=trees,
        warnings=_warnings(spec, prepared),
    )


def plan_on_sagemaker(
    spec: JobSpec,
    settings: Settings,
    account: AwsSettings,
    prepared: PreparedInputs,
    mirror: MirrorAnswer,
) -> Plan:
    """Plan a job of an account; raises SpecError or DatasetError with all that is wrong when it cannot run.

    A job whose Hub model is mirrored reads the copy, and its hyperparameters name the commit of the copy. The job's
    identity is that of what was asked for, mirrored or not: the same submit stays the same job when a copy was made
    between the two, and a job that ended early goes on with the request it began with.
    """
    placement = _checked(spec, account, prepared, mirror)
    code = bundle_tree(BundleKind.TRAINING)
    trees = [*prepared.trees.values(), code]
    data = {channel: s3_uri(account.bucket, tree.name) for channel, tree in prepared.trees.items()}
    model = _model_tree(spec, settings)
    if model is not None:
        trees.append(model)
        model_sha256, base_model, commit = model.sha256, s3_uri(account.bucket, model.name), None
    elif mirror.model is not None:
        model_sha256, base_model, commit = None, mirror.model.uri, mirror.model.commit
    else:
        model_sha256, base_model, commit = None, None, None
    identity = spec.identity(prepared.sha256, model_sha256)
    inputs = JobInputs(
        identity=identity,
        data=data,
        base_model=base_model,
        commit=commit,
        bundle=s3_uri(account.bucket, code.name),
        output=adapter_uri(account, spec, identity),
    )
    warnings = (*_warnings(spec, prepared), *_mirror_warnings(spec, mirror))
    plans = []
    for placed in (placement, *stand_ins(spec, placement)):
        request = training_job(spec, inputs, Place(account=account, placement=placed, owner=owner()))
        plan = Plan(
            request=request,
            trees=tuple(trees),
            warnings=(*warnings, *placed.warnings),
            placement=placed,
            mirrored=mirror.model,
        )
        plans.append(plan)
    return plans[0].model_copy(update={"stand_ins": tuple(plans[1:])})


def _checked(
    spec: JobSpec,
    account: AwsSettings,
    prepared: PreparedInputs,
    mirror: MirrorAnswer,
) -> Placement:
    """Place the job and look at its inputs and for secrets; raises one error with all that is wrong."""
    errors: list[OrchestratorError] = []
    with _collecting(errors):
        placement = place(spec, account.region)
    with _collecting(errors):
        check_inputs(prepared, spec.recipe.caption_word)
        require_no_secret(_texts_of(prepared))
    with _collecting(errors):
        require_no_secret(_texts_of_request(spec, account))
    with _collecting(errors):
        _check_isolation(spec, mirror)
    if errors:
        raise _all_in_one(errors)
    return placement


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
    return type(first)(
        message,
        next_step=first.next_step,
        problems=[one for error in errors for one in error.problems],
    )


def _check_isolation(spec: JobSpec, mirror: MirrorAnswer) -> None:
    """Raise SpecError for a job that is to be cut off from the network and has to fetch its base model."""
    source = spec.base_model
    if not isinstance(source, Hub) or not mirror.asked or mirror.model is not None:
        return
    if spec.compute.network_isolation:
        what = f'"{source.id}" is fetched by the job itself, which an isolated container cannot'
        raise SpecError(
            "The job cannot be isolated; nothing was started.",
            problems=[
                Problem(
                    where="compute.network_isolation",
                    what=what,
                    fix="put a copy of it into the bucket",
                )
            ],
            next_step=f"{_mirror_command(source)}  # then submit again",
        )


def _mirror_warnings(spec: JobSpec, mirror: MirrorAnswer) -> tuple[Problem, ...]:
    """Return what a plan cannot know when the bucket was not asked for a copy of the Hub model."""
    source = spec.base_model
    if not isinstance(source, Hub) or mirror.asked:
        return ()
    what = "this plan did not ask the bucket for a copy and names none; a submit asks, the job reads the copy, "
    if spec.compute.network_isolation:
        what += "and without one it is refused, because it is to be isolated"
    else:
        what += "and without one it fetches the model from the Hugging Face Hub"
    return (
        Problem(
            where=f'base_model "{source.id}"',
            what=what,
            fix=_mirror_command(source),
        ),
    )


def _mirror_command(source: Hub) -> str:
    """Return what to type so that a job finds its Hub model in the bucket."""
    words = ["python", "-m", "orchestrator", "models", "mirror", source.id]
    if source.revision is not None:
        words += ["--revision", source.revision]
    return shlex.join(words)


def _model_tree(spec: JobSpec, settings: Settings) -> Tree | None:
    """Return the base model that lies on this machine; None for one of the Hub."""
    if isinstance(spec.base_model, Hub):
        return None
    return model_tree(spec.base_model.folder, HashMemory(settings.cache / "hashes").digest)


def _warnings(spec: JobSpec, prepared: PreparedInputs) -> tuple[Problem, ...]:
    found = prepared.dataset.warnings if prepared.dataset else ()
    return (*found, *_doubts(spec))


def _doubts(spec: JobSpec) -> tuple[Problem, ...]:
    """Return what is odd about pictures and model together: the built-in one has never seen a photograph."""
    images = spec.inputs.get(IMAGES)
    if not isinstance(spec.base_model, Builtin) or images in (None, SAMPLE_IMAGES):
        return ()
    what = "the built-in model knows drawn shapes and no photographs: of those it learns colours more than forms"
    fix = "name another with --base-model, or train all of it, as the README says"
    return (Problem(where="base_model", what=what, fix=fix),)


def _texts_of(prepared: PreparedInputs) -> Mapping[str, Any]:
    """Return what a person wrote of the pictures; captions lie beside them in the bucket."""
    pictures = prepared.dataset.pictures if prepared.dataset else ()
    return {"pictures": {str(picture.file): picture.caption for picture in pictures}}


def _texts_of_request(spec: JobSpec, account: AwsSettings) -> Mapping[str, Any]:
    """Return what a person wrote and others can read later in the request and its tags."""
    return {
        **spec.model_dump(mode="json", exclude={"inputs"}),
        OWNER_VARIABLE: owner(),
        "training_image": account.training_image,
    }
