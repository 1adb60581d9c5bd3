"""Plan a job: the request, and the trees it reads, which are not stored yet. Makes no call."""

import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.environment import FINDINGS_CHANNEL
from orchestrator.contract.problem import Problem
from orchestrator.contract.rewards import REWARDS_CHANNEL
from orchestrator.models.mirrored import MirrorAnswer, MirroredModel
from orchestrator.models.tree import model_tree, scorer_tree
from orchestrator.planning.bundle import bundle_tree
from orchestrator.planning.checks import check_job
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.planning.placement import Placement
from orchestrator.planning.rewards import PlannedReward, planned_rewards, reward_tree
from orchestrator.planning.training_request import JobInputs, SageMakerContext, job_name, output_uri, training_job
from orchestrator.requests import LocalContainer, Request, in_image
from orchestrator.settings import AwsSettings, Settings, owner
from orchestrator.specs.base_model import Hub
from orchestrator.specs.compute import SHORTEST_MINUTES
from orchestrator.specs.job import JobSpec
from orchestrator.storage.hash_cache import HashCache
from orchestrator.storage.store import Store
from orchestrator.storage.tree import Tree
from orchestrator.storage.uris import file_uri, s3_uri


class Plan(BaseModel):
    """What a submit would start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: Request
    """The CreateTrainingJob request."""
    trees: tuple[Tree, ...] = ()
    """What the job reads: to be stored before it starts. The URIs in the request hold their hashes."""
    warnings: tuple[Problem, ...] = ()
    """Problems of inputs, model and instance that do not stop the job."""
    rewards: tuple[PlannedReward, ...] = ()
    """What is raised by reinforcement learning, and what only evaluates it."""
    notes: tuple[str, ...] = ()
    """What the job derives from its settings, for a person to look at before it starts."""
    placement: Placement | None = None
    """Instance, limits and price; None for a local job."""
    stand_ins: tuple["Plan", ...] = ()
    """The same job on other instance types, for when this one has no capacity; the cheapest first."""
    mirrored: MirroredModel | None = None
    """The copy of a Hub model that the job reads; None for any other model, and when the job downloads it itself."""

    def in_image(self, image: str) -> "Plan":
        """Return the same job in an image of another name, such as the digest of the one that was planned for.

        The job's identity has no part of the image, and the tag and the digest are names of the same one.
        """
        stand_ins = []
        for stand_in in self.stand_ins:
            stand_ins.append(stand_in.in_image(image))
        changed = {
            "request": in_image(self.request, image),
            "stand_ins": tuple(stand_ins),
        }
        return self.model_copy(update=changed)

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
        seconds_left = cost.runtime_seconds - math.ceil(hours_spent * 3600)
        if seconds_left < SHORTEST_MINUTES * 60:
            return None
        usd_left = cost.usd - usd
        cost_left = cost.model_copy(update={"usd": usd_left, "runtime_seconds": seconds_left})
        placement = self.placement.model_copy(update={"cost": cost_left})
        limits = {**self.request["StoppingCondition"], "MaxRuntimeInSeconds": seconds_left}
        request = {**self.request, "StoppingCondition": limits}
        return self.model_copy(update={"request": request, "placement": placement})


def store_trees(plan: Plan, store: Store) -> None:
    """Store what the job reads. Idempotent: what the store holds is not sent again."""
    for tree in plan.trees:
        store.put_tree(tree)


class _Trees(NamedTuple):
    """The files that a job reads."""

    data: Mapping[str, Tree]
    """Channel name to prepared files."""
    model: Tree | None
    """Base model on this machine; None for a Hub model."""
    scorer: Tree | None
    """None for a job that is measured by its base model's own CLIP."""
    code: Tree
    """Bundle of the code that trains."""
    rewards_sha256: str | None = None
    """Hash of the weights of rewards, which are among the data; None where there are none."""

    def stored(self) -> tuple[Tree, ...]:
        """Return the trees that a job on another machine needs a copy of: all of them."""
        trees = [*self.data.values(), self.code]
        if self.model is not None:
            trees.append(self.model)
        if self.scorer is not None:
            trees.append(self.scorer)
        return tuple(trees)


def plan_here(
    spec: JobSpec,
    settings: Settings,
    prepared: PreparedInputs,
    container: LocalContainer | None = None,
) -> Plan:
    """Plan a local job, in a `container` or as a process.

    Raises SpecError or DatasetError with all problems when it cannot run. A base model and a scorer in a folder are
    read from there, without a copy, except in a container where the folder has links to files outside it, as those of
    the Hub's cache do: a container sees the folder alone.
    """
    checked = check_job(spec, prepared)
    trees = _trees(spec, settings, prepared)
    identity = _identity(spec, prepared, trees)
    data = {channel: file_uri(settings.store, tree.name) for channel, tree in trees.data.items()}
    stored = [*trees.data.values(), trees.code]
    base_model = None
    if trees.model is not None and not isinstance(spec.base_model, Hub):
        base_model = spec.base_model.folder.as_uri()
        if container is not None and _leads_outside(trees.model, spec.base_model.folder):
            base_model = file_uri(settings.store, trees.model.name)
            stored.append(trees.model)
    scorer = None
    if trees.scorer is not None and spec.scorer is not None:
        scorer = spec.scorer.as_uri()
        if container is not None and _leads_outside(trees.scorer, spec.scorer):
            scorer = file_uri(settings.store, trees.scorer.name)
            stored.append(trees.scorer)
    if spec.recipe.trains:
        output = settings.adapters / (spec.name or job_name(spec, identity))
    elif spec.recipe.shares_images:
        output = settings.images / job_name(spec, identity)
    else:  # what is measured anew replaces nothing
        output = settings.evaluations / job_name(spec, identity)
    inputs = JobInputs(
        identity=identity,
        data=data,
        base_model=base_model,
        scorer=scorer,
        bundle=file_uri(settings.store, trees.code.name),
        output=output.as_uri(),
    )
    return Plan(
        request=training_job(spec, inputs, container),
        trees=tuple(stored),
        warnings=checked.warnings,
        rewards=planned_rewards(spec),
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
    checked = check_job(spec, prepared, account, mirror)
    trees = _trees(spec, settings, prepared)
    identity = _identity(spec, prepared, trees)
    data = {channel: s3_uri(account.bucket, tree.name) for channel, tree in trees.data.items()}
    base_model = _uri(account, trees.model)
    commit = None
    if mirror.model is not None:
        base_model = mirror.model.uri
        commit = mirror.model.commit
    inputs = JobInputs(
        identity=identity,
        data=data,
        base_model=base_model,
        commit=commit,
        scorer=_uri(account, trees.scorer),
        bundle=s3_uri(account.bucket, trees.code.name),
        output=output_uri(account, spec, identity),
    )
    plans = []
    for placement in checked.placements:
        context = SageMakerContext(account=account, placement=placement, owner=owner())
        plan = Plan(
            request=training_job(spec, inputs, context),
            trees=trees.stored(),
            warnings=(*checked.warnings, *placement.warnings),
            rewards=planned_rewards(spec),
            notes=tuple(spec.recipe.notes),
            placement=placement,
            mirrored=mirror.model,
        )
        plans.append(plan)
    first, *others = plans
    return first.model_copy(update={"stand_ins": tuple(others)})


def _leads_outside(tree: Tree, folder: Path) -> bool:
    """Return whether one of the files in a folder is a link to a file outside it."""
    inside = folder.resolve()
    return any(inside not in path.resolve().parents for path in tree.sources.values())


def _trees(spec: JobSpec, settings: Settings, prepared: PreparedInputs) -> _Trees:
    """Hash what a job reads; the hashes of large files are remembered."""
    hashes = HashCache(settings.cache / "hashes")
    model = None
    if not isinstance(spec.base_model, Hub):
        model = model_tree(spec.base_model.folder, hashes.digest)
    scorer = None
    if spec.scorer is not None:
        scorer = scorer_tree(spec.scorer, hashes.digest)
    code = bundle_tree(BundleKind.TRAINING)
    data = dict(prepared.trees)
    if prepared.findings is not None:
        data[FINDINGS_CHANNEL] = prepared.findings
    rewards = reward_tree(spec, hashes.digest)
    if rewards is None:
        return _Trees(data, model, scorer, code)
    data[REWARDS_CHANNEL] = rewards
    return _Trees(data, model, scorer, code, rewards.sha256)


def _identity(spec: JobSpec, prepared: PreparedInputs, trees: _Trees) -> str:
    """Return the hash of the job's settings and of the files it reads, without the code."""
    model_sha256 = None
    if trees.model is not None:
        model_sha256 = trees.model.sha256
    scorer_sha256 = None
    if trees.scorer is not None:
        scorer_sha256 = trees.scorer.sha256
    return spec.identity(prepared.sha256, model_sha256, scorer_sha256, trees.rewards_sha256)


def _uri(account: AwsSettings, tree: Tree | None) -> str | None:
    if tree is None:
        return None
    return s3_uri(account.bucket, tree.name)
