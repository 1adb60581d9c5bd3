"""Check a job before it is planned: machines, images, captions, prompts and secrets, with one error for all problems.

Makes no call.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

from orchestrator.contract.command_line import command
from orchestrator.contract.datasets import IMAGES
from orchestrator.contract.environment import has_gpu_here
from orchestrator.contract.mixins import EIGHT_BIT, EIGHT_BIT_PACKAGE, Optimised
from orchestrator.contract.problem import Problem
from orchestrator.contract.trackers import tracker_fault
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.models.mirrored import NOT_ASKED, MirrorAnswer
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.planning.placement import Placement, find_placement, stand_ins
from orchestrator.planning.rewards import check_rewards
from orchestrator.planning.texts import check_captions, check_settings
from orchestrator.resources import SAMPLES
from orchestrator.secret_scan import looks_like, require_no_secret
from orchestrator.settings import OWNER_VARIABLE, AwsSettings, owner
from orchestrator.specs.base_model import Builtin, Hub
from orchestrator.specs.job import JobSpec


class Checked(NamedTuple):
    """What the checks of a job found that can be planned."""

    warnings: tuple[Problem, ...]
    """Problems that do not stop the job."""
    placements: tuple[Placement, ...]
    """The chosen instance, and those for when it has no capacity, the cheapest first; none for a local job."""


def check_job(
    spec: JobSpec,
    prepared: PreparedInputs,
    account: AwsSettings | None = None,
    mirror: MirrorAnswer = NOT_ASKED,
) -> Checked:
    """Check a job for SageMaker, or without an `account` for this machine.

    Raises SpecError or DatasetError with all problems when it cannot run.
    """
    errors: list[OrchestratorError] = []
    placements: list[Placement] = []
    warnings = [*spec.warnings, *prepared.warnings]
    if account is not None:
        with _collecting(errors):
            inputs = sum(tree.bytes for tree in prepared.trees.values())
            chosen = find_placement(spec, account.region, inputs)
            placements = [chosen, *stand_ins(spec, chosen)]
        with _collecting(errors):
            require_no_secret({**_captions(prepared), **prepared.texts})
    if prepared.error is not None:
        errors.append(prepared.error)
    with _collecting(errors):
        _check_trackers(spec, on_sagemaker=account is not None)
    with _collecting(errors):
        _check_optimizer(spec, on_sagemaker=account is not None)
    with _collecting(errors):
        warnings += check_rewards(spec, on_sagemaker=account is not None)
    with _collecting(errors):
        warnings += check_settings(spec)
    with _collecting(errors):
        warnings += check_captions(spec, prepared)
    if account is not None:
        with _collecting(errors):
            require_no_secret(_request_texts(spec, account))
        with _collecting(errors):
            _check_isolation(spec, mirror)
    warnings += _photo_warnings(spec)
    warnings += _lone_condition(spec, prepared)
    if errors:
        raise _with_warnings(_merged(errors), warnings)
    if account is not None:
        warnings += _mirror_warnings(spec, mirror)
    return Checked(tuple(warnings), tuple(placements))


@contextmanager
def _collecting(errors: list[OrchestratorError]) -> Iterator[None]:
    """Add the error that a check raises, and go on with the next check."""
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
    distinct_messages = dict.fromkeys(messages)  # two checks may fail at the same file
    distinct_problems = dict.fromkeys(problems)
    return type(first)(
        " ".join(distinct_messages),
        next_step=first.next_step,
        problems=tuple(distinct_problems),
    )


def _with_warnings(error: OrchestratorError, warnings: Sequence[Problem]) -> OrchestratorError:
    """Add the warnings to an error, so that they need no second attempt to be seen."""
    for warning in warnings:
        if not looks_like(warning.render()):  # the error may be about a secret in the name of a file
            error.add_warnings([warning])
    return error


def _photo_warnings(spec: JobSpec) -> tuple[Problem, ...]:
    """Return a warning when a person's images meet the built-in model, which has seen drawings only."""
    if spec.recipe.trains_all_weights or not isinstance(spec.base_model, Builtin):
        return ()
    images = spec.inputs.get(IMAGES)
    if images is None or images in SAMPLES:
        return ()
    warning = Problem(
        where="base_model",
        what="the built-in model knows drawn shapes alone: from photos it learns the colours, and hardly the shapes",
        fix="name another model with --base-model, or train all of it with dreambooth -s tuner=full, as in README",
    )
    return (warning,)


def _lone_condition(spec: JobSpec, prepared: PreparedInputs) -> tuple[Problem, ...]:
    """Return a warning when a ControlNet gets one picture alone, whose condition has no others beside it."""
    dataset = prepared.dataset
    if not spec.recipe.dataset.has_conditions or dataset is None or len(dataset.images) != 1:
        return ()
    what = "there is only 1 picture: whether its condition is obeyed cannot be measured without those of others"
    return (
        Problem(where=f"{dataset.folder.resolve().name}/", what=what, fix="add pictures; many hundreds are common"),
    )


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


def _check_isolation(spec: JobSpec, mirror: MirrorAnswer) -> None:
    """Raise SpecError for a job without network access that has to download its base model."""
    source = spec.base_model
    if not isinstance(source, Hub) or not spec.compute.network_isolation:
        return
    if not mirror.asked or mirror.model is not None:
        return
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


def _check_trackers(spec: JobSpec, *, on_sagemaker: bool) -> None:
    """Raise SpecError for a service that is to follow the job and cannot.

    A job on SageMaker has no key: a key in its request could be read by everybody who may describe the job.
    """
    problems = []
    for name in spec.recipe.trackers:
        if on_sagemaker:
            what = f"{name} is for jobs on this machine: its key does not travel to SageMaker"
            fix = "leave it out; TensorBoard's files are in the bucket while the job runs"
            problems.append(Problem(where="trackers", what=what, fix=fix))
            continue
        fault = tracker_fault(name)
        if fault is not None:
            problems.append(Problem(where="trackers", what=f"{name} cannot be used: {fault.what}", fix=fault.fix))
    if problems:
        raise SpecError(
            "The job cannot be followed as asked; nothing was started.",
            problems=problems,
            next_step="leave out trackers, or do what stands beside it",
        )


def _check_optimizer(spec: JobSpec, *, on_sagemaker: bool) -> None:
    """Raise SpecError for an optimizer that this machine cannot run; the training image has all of them."""
    recipe = spec.recipe
    if on_sagemaker or not isinstance(recipe, Optimised) or recipe.optimizer != EIGHT_BIT:
        return
    problem: Problem | None = None
    fix = "write -s optimizer=adamw, which gives about the same result, or submit it to SageMaker"
    if not has_gpu_here():
        what = f"{EIGHT_BIT} is for GPUs, and this machine has none"
        problem = Problem(where="optimizer", what=what, fix=fix)
    elif find_spec(EIGHT_BIT_PACKAGE) is None:
        what = f"{EIGHT_BIT} needs a package that is not installed"
        problem = Problem(where="optimizer", what=what, fix=f"pip install {EIGHT_BIT_PACKAGE}")
    if problem is not None:
        raise SpecError(
            "The optimizer cannot be used on this machine; nothing was started.",
            problems=[problem],
            next_step=f"{problem.fix}, then submit again",
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
