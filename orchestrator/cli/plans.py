"""How a plan is shown: what would be uploaded, where it runs and why, what it can cost, and the exact request."""

import click

from orchestrator.cli.output import print_facts, print_json, print_table
from orchestrator.planning.plan import Plan
from orchestrator.planning.pricing import dollars
from orchestrator.storage.tree import Tree
from orchestrator.storage.uris import s3_uri

_NOT_READY = "no account is set up yet: names of account, role and image are made up (python -m orchestrator infra up)"


def print_plan(plan: Plan, bucket: str, *, as_json: bool, ready: bool, request: bool = True) -> None:
    """Print a plan for SageMaker: facts and the request, or one JSON value."""
    if as_json:
        print_json(_as_json(plan, bucket, ready=ready))
        return
    print_facts(_facts(plan, ready=ready))
    click.echo()
    print_table(("UPLOAD, IF NOT THERE", "FILES", "SIZE"), [_row(bucket, tree) for tree in plan.trees])
    if request:
        click.echo()
        print_json(plan.request)


def _facts(plan: Plan, *, ready: bool) -> list[tuple[str, str]]:
    place = plan.placement
    facts = [("job", str(plan.request["TrainingJobName"]))]
    if place is not None:
        facts += [
            ("instance", f"{place.instance.describe()} in {place.region}"),
            ("why", place.why),
            (
                "memory",
                place.memory.describe() if place.memory else "cannot be estimated: the model's size is not known",
            ),
            ("cost", place.cost.describe()),
            ("limit", f"{place.cost.runtime_seconds // 60} minutes of running"),
            ("quota", f"{place.quota}: at least {plan.request['ResourceConfig']['InstanceCount']}"),
            ("stand-ins", ", ".join(_stand_ins(plan)) or "none within the budget"),
        ]
    return facts if ready else [*facts, ("note", _NOT_READY)]


def _stand_ins(plan: Plan) -> list[str]:
    places = [one.placement for one in plan.stand_ins if one.placement]
    return [f"{place.instance.name} (at most {dollars(place.cost.usd)})" for place in places]


def _row(bucket: str, tree: Tree) -> tuple[str, str, str]:
    return s3_uri(bucket, tree.name), str(len(tree.files)), f"{tree.bytes / 1e6:.2f} MB"


def _as_json(plan: Plan, bucket: str, *, ready: bool) -> dict[str, object]:
    uploads = []
    for tree in plan.trees:
        files = {name: digest.model_dump() for name, digest in tree.files.items()}
        uploads.append({"uri": s3_uri(bucket, tree.name), "files": files})
    return {
        "request": plan.request,
        "uploads": uploads,
        "placement": plan.placement.model_dump(mode="json") if plan.placement else None,
        "stand_ins": [one.placement.model_dump(mode="json") for one in plan.stand_ins if one.placement],
        "warnings": [warning.model_dump() for warning in plan.warnings],
        "account_set_up": ready,
    }
