"""Print a plan: the uploads, the instance and why it was chosen, the worst-case price; as JSON also the request."""

import click

from orchestrator.cli.output import print_facts, print_json, print_table, print_warning, say
from orchestrator.contract.command_line import command
from orchestrator.contract.plurals import counted
from orchestrator.errors import JobError
from orchestrator.jobs.job import Job, nothing_to_resume, starts_again
from orchestrator.planning.placement import Placement
from orchestrator.planning.plan import Plan
from orchestrator.planning.pricing import dollars, storage_per_month
from orchestrator.requests import Made, made_by, scorer_of
from orchestrator.storage.folder import location_of
from orchestrator.storage.uris import s3_uri
from orchestrator.targets.local.local_jobs import LocalJobs
from orchestrator.terminal import size_text

_UPLOAD_HEADS = ("UPLOAD, IF NOT THERE", "FILES", "SIZE")
_UP = command("infra", "up")
NOT_STARTED = "Nothing was started. Without --dry-run this starts the job; with --json it prints the request."
NOT_TO_START = "Nothing was started, and without --dry-run nothing would be; with --json it prints the request."
"""Of a job that something keeps from being started, as a warning or a line of the plan says."""
_NO_ACCOUNT = f"no account is set up: account, role and image are placeholders ({_UP})"


def print_plan(
    plan: Plan,
    bucket: str,
    *,
    as_json: bool,
    ready: bool,
) -> None:
    """Print a plan for SageMaker: facts and uploads, or one JSON value, which holds the request."""
    if as_json:
        print_json(_as_json(plan, bucket, ready=ready))
        return
    facts = _facts(plan, ready=ready)
    print_facts(facts)
    click.echo()
    rows = []
    for tree in plan.trees:
        uri = s3_uri(bucket, tree.name)
        count = len(tree.files)
        row = (uri, str(count), size_text(tree.bytes))
        rows.append(row)
    print_table(_UPLOAD_HEADS, rows)


def scorer_facts(plan: Plan) -> list[tuple[str, str]]:
    """Return what measures the figures, where that is not the base model's own CLIP."""
    scorer = scorer_of(plan.request)
    if scorer is None:
        return []
    return [("measured by", f"the CLIP in {location_of(scorer)}")]


def reward_facts(plan: Plan) -> list[tuple[str, str]]:
    """Return what is raised and what only evaluates, a line for each reward."""
    facts = []
    for reward in plan.rewards:
        label = "reward" if reward.weight is not None else "evaluation reward"
        facts.append((label, reward.describe()))
    return facts


def warn_of_taken_name(
    plan: Plan,
    target: LocalJobs,
    *,
    resume: bool,
    restart: bool,
) -> bool:
    """Say what would keep a local job from being started: it was submitted before, or its adapter's name is taken.

    Returns whether there is such an obstacle. Where there is none, an earlier run is mentioned.
    """
    name = plan.request["TrainingJobName"]
    job = Job(target, name)
    again = False
    try:
        if resume and not target.has(name):
            raise nothing_to_resume()
        again = starts_again(job, resume=resume, restart=restart)
        obstacle = target.obstacle(plan.request, starts_again=again)
    except JobError as error:
        obstacle = error
    if obstacle is not None:
        print_warning(obstacle)
        return True
    if again and resume:
        say(f"{name} was submitted before. Without --dry-run this resumes it.", err=True)
    elif again:
        say(f"{name} was submitted before. Without --dry-run this starts it again.", err=True)
    return False


def _facts(plan: Plan, *, ready: bool) -> list[tuple[str, str]]:
    name = plan.request["TrainingJobName"]
    facts = [("job", str(name)), *reward_facts(plan), *scorer_facts(plan)]
    if plan.placement is not None:
        facts += _placement_facts(plan, plan.placement)
    if not ready:
        facts.append(("note", _NO_ACCOUNT))
    return facts


def _placement_facts(plan: Plan, placement: Placement) -> list[tuple[str, str]]:
    """Return the instance and why it was chosen, limits, and worst-case price."""
    memory = "cannot be estimated: the size of the model is unknown"
    if placement.memory is not None:
        memory = placement.memory.describe()
    instance = placement.instance.describe()
    minutes = placement.cost.runtime_seconds // 60
    instances = plan.request["ResourceConfig"]["InstanceCount"]
    stand_ins = ", ".join(_stand_ins(plan))
    storage = [("storage", _storage(placement))]
    if made_by(plan.request) is not Made.ADAPTER:  # it has no checkpoints but its images
        storage = []
    return [
        ("instance", f"{instance} in {placement.region}"),
        ("why", placement.why),
        ("memory", memory),
        ("expected", _expected(placement)),
        ("cost", _cost(placement)),
        *storage,
        ("limit", f"{counted(minutes, 'minute')} of running time"),
        ("quota", f"{placement.quota}: at least {instances}"),
        ("stand-ins", stand_ins or "none within the budget"),
    ]


def _expected(placement: Placement) -> str:
    if placement.expected is None:
        return "unknown: no figures of this model or GPU"
    return placement.expected.describe()


def _cost(placement: Placement) -> str:
    """Return the likely cost, if it is known, and the worst case."""
    most = placement.cost.describe()
    if placement.likely_usd is None:
        return most
    low, high = placement.likely_usd
    likely = f"likely {dollars(low)} to {dollars(high)}"
    if placement.cost.spot_usd is not None:
        likely = f"{likely} as spot"
    return f"{likely}; {most}"


def _storage(placement: Placement) -> str:
    size = placement.checkpoint_bytes
    if not size:
        return "checkpoints of unknown size in the bucket while it trains"
    usd = storage_per_month(size)
    return f"checkpoints of {size_text(size)} in the bucket: {dollars(usd)} if they are kept for a month"


def _stand_ins(plan: Plan) -> list[str]:
    found = []
    for stand_in in plan.stand_ins:
        placement = stand_in.placement
        if placement is None:
            continue
        name = placement.instance.name
        limit = placement.cost.limit()
        found.append(f"{name} ({limit})")
    return found


def _as_json(plan: Plan, bucket: str, *, ready: bool) -> dict[str, object]:
    uploads = []
    for tree in plan.trees:
        uri = s3_uri(bucket, tree.name)
        files = {}
        for name, digest in tree.files.items():
            files[name] = digest.model_dump()
        uploads.append({"uri": uri, "files": files})
    stand_ins = []
    for stand_in in plan.stand_ins:
        if stand_in.placement is not None:
            stand_ins.append(_placement_json(stand_in))
    warnings = []
    for warning in plan.warnings:
        warnings.append(warning.model_dump())
    return {
        "request": plan.request,
        "uploads": uploads,
        "placement": _placement_json(plan),
        "stand_ins": stand_ins,
        "rewards": [reward.model_dump(mode="json") for reward in plan.rewards],
        "warnings": warnings,
        "notes": plan.notes,
        "account_set_up": ready,
    }


def _placement_json(plan: Plan) -> dict[str, object] | None:
    placement = plan.placement
    if placement is None:
        return None
    return placement.model_dump(mode="json")
