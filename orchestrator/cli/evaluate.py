"""`evaluate`: a finished adapter beside its base model, in figures and images."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.adapter_options import adapter_options
from orchestrator.cli.completion import folders
from orchestrator.cli.job_options import check_target, turn_of, turn_options
from orchestrator.cli.output import json_option, print_facts, print_json, say
from orchestrator.cli.starting import Start, begin, chosen_start, show_without_calls, start_on_sagemaker, warn
from orchestrator.contract.plurals import counted
from orchestrator.targets.names import LOCAL_TARGETS, TARGET_NAMES, TargetName

if TYPE_CHECKING:
    from orchestrator.cli.asked_evaluation import AskedEvaluation
    from orchestrator.settings import Settings


@click.command()
@adapter_options
@click.option(
    "--reference",
    metavar="DIR",
    shell_complete=folders,
    help="Real pictures to compare with; those kept with the adapter when left out. A ControlNet needs some that "
    "training did not use.",
)
@click.option(
    "--prompts",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Prompts, one a line, {} where the subject stands; those of the recipe when left out. For a ControlNet they "
    "take the place of the pictures' captions.",
)
@click.option("--seeds", metavar="N", type=int, help="Images of each prompt; 4 when left out.")
@click.option(
    "--scorer",
    metavar="FOLDER",
    shell_complete=folders,
    help="A CLIP that measures CLIP-I and CLIP-T; else the base model's own.",
)
@click.option(
    "--dino",
    metavar="FOLDER",
    shell_complete=folders,
    help="A DINO, DINOv2 or ViT of transformers, to measure by it too.",
)
@click.option("--target", type=click.Choice(TARGET_NAMES), default=TargetName.LOCAL.value, help="Where to measure.")
@click.option("--instance-type", metavar="TYPE", help="On SageMaker: ml.g5.xlarge, ...; chosen when left out.")
@click.option("--spot", is_flag=True, default=None, help="On SageMaker: spot instances.")
@click.option("--max-usd", metavar="USD", help="On SageMaker: what the job may cost; sets its time limit.")
@click.option("--restart", is_flag=True, help="Start the same job again from its beginning.")
@turn_options
@click.option("--dry-run", is_flag=True, help="Show what would be started and start nothing.")
@click.option("--yes", is_flag=True, help="On SageMaker: do not ask before spending.")
@click.option("--detach", is_flag=True, help="Return at once; `jobs wait` watches the job.")
@json_option
def evaluate(adapter: str, *, target: str, dry_run: bool, yes: bool, **given: Any) -> int:
    """Measure an adapter beside its base model: the same prompts and seeds, none of them used in training.

    Subject fidelity, prompt fidelity, diversity, and drift on unrelated prompts, in two feature spaces or more, with
    bootstrap intervals. A ControlNet draws pictures anew that training did not use, and what is measured is whether
    images have what its maps show.

    A job that was stopped goes on when the command is typed again: images that it has drawn are kept.

    \b
    evaluate dog
    evaluate dog --reference ./dog --prompts prompts.txt --seeds 8
    evaluate dog --target sagemaker --max-usd 2
    evaluate edges --reference ./new-pictures
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.cli.asked_evaluation import ask
    from orchestrator.settings import Settings

    check_target(target, given)
    start = chosen_start(given)
    settings = Settings.from_environment()
    with TemporaryDirectory(prefix="orchestrator-") as temporary:
        asked = ask(adapter, settings, given, Path(temporary))
        if target in LOCAL_TARGETS:
            return _evaluate_here(asked, settings, start, target, dry_run=dry_run)
        if dry_run:
            show_without_calls(asked.spec, settings, asked.prepared, as_json=start.as_json)
            return 0
        account = settings.account()
        return start_on_sagemaker(asked.spec, settings, account, asked.prepared, start, yes=yes)


def _evaluate_here(
    asked: "AskedEvaluation",
    settings: "Settings",
    start: Start,
    target_name: str,
    *,
    dry_run: bool,
) -> int:
    from orchestrator.cli.local_plan import expected_text
    from orchestrator.cli.plans import NOT_STARTED
    from orchestrator.planning.plan import plan_here, store_trees
    from orchestrator.storage import FolderStore, folder_of
    from orchestrator.targets.local.opening import open_local

    target = open_local(target_name, settings, turn_of(queue=start.queue, together=start.together))
    plan = plan_here(asked.spec, settings, asked.prepared, target.container)
    warn(plan)
    if dry_run and start.as_json:
        print_json(plan.request)
        return 0
    if dry_run:
        output = folder_of(plan.request["OutputDataConfig"]["S3OutputPath"])
        expected = expected_text(asked.spec, target)
        facts = [("job", plan.request["TrainingJobName"]), *_facts(asked)]
        print_facts([*facts, ("expected", expected), ("evaluation", str(output))])
        say(NOT_STARTED, err=True)
        return 0
    settings.require_writable()
    target.require_machine(plan.request)
    store_trees(plan, FolderStore(settings.store))
    if not start.as_json and not target.has(plan.request["TrainingJobName"]):
        say(f"Expected duration: {expected_text(asked.spec, target)}", err=True)
    return begin(plan, target, start)


def _facts(asked: "AskedEvaluation") -> list[tuple[str, str]]:
    """Return what an evaluation is going to do."""
    from orchestrator.contract.evaluation import ways_of

    settings = asked.settings
    prompts = counted(len(asked.prompts.prompts), "prompt")
    others = counted(len(asked.prompts.unrelated), "unrelated prompt")
    seeds = counted(settings.seeds, "seed")
    images = counted(settings.images, "image")
    steps = counted(settings.inference_steps, "step")
    dataset = asked.prepared.dataset
    reference = "the pictures kept with the adapter"
    if dataset is not None:
        reference = f"{counted(len(dataset.images), 'picture')} in {dataset.folder}"
    drawn = ("prompts", f"{prompts} and {others}, x {seeds} x 2 models: {images}")
    if settings.conditions:
        ways = 1 + len(ways_of(settings.conditions))
        drawn = ("pictures", f"{prompts}, x {seeds} x {counted(ways, 'way')} to show maps or none: {images}")
    return [
        drawn,
        ("images", f"{settings.resolution} pixels, {steps}, guidance {settings.guidance_scale:g}"),
        ("reference", reference),
        ("base model", settings.base_model),
    ]
