"""A total that nothing can exceed."""

import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SpecError
from orchestrator.planning.plan import Plan
from orchestrator.requests import channel_uris
from orchestrator.settings import AwsSettings, Settings
from orchestrator.storage import FolderStore
from orchestrator.storage.tree import Tree
from orchestrator.sweeps.budget import require_share, total_worst_case, with_shares
from orchestrator.sweeps.grid import Variant, expand
from orchestrator.sweeps.planning import plan_sweep_on_sagemaker, store_trees
from orchestrator.sweeps.running import Entry
from orchestrator.targets.base import JobDescription, JobStatus


def plans(settings: Settings, max_usd: str | None, **fields: Any) -> list[Plan]:
    variants = with_shares(expand({"recipe": "dreambooth", **fields}, ["rank=4,8,16"]), max_usd)
    account = AwsSettings.placeholder("eu-west-1")
    return [entry.plan for entry in entries_of(variants, settings, account)]


def entries_of(variants: Sequence[Variant], settings: Settings, account: AwsSettings) -> list[Entry]:
    with tempfile.TemporaryDirectory() as staging:
        return plan_sweep_on_sagemaker(variants, settings, account, Path(staging), {})


@pytest.mark.parametrize("total", ["0.60", "1", "1.2999"])
def test_the_worst_case_of_all_jobs_is_within_the_total(settings: Settings, total: str) -> None:
    planned = plans(settings, total)
    most = total_worst_case(planned)
    assert most is not None
    assert Decimal(total) - Decimal("0.1") < most <= Decimal(total)
    limits = {plan.request["StoppingCondition"]["MaxRuntimeInSeconds"] for plan in planned}
    assert len(limits) == 1
    assert limits.pop() < 30 * 60


def test_a_lower_budget_of_the_job_itself_stays(settings: Settings) -> None:
    costs = [plan.placement.cost.usd for plan in plans(settings, "30", budget={"max_usd": 1}) if plan.placement]
    assert len(costs) == 3
    assert max(costs) <= 1


def test_without_a_total_every_job_may_run_as_long_as_it_may_alone(settings: Settings) -> None:
    assert {plan.request["StoppingCondition"]["MaxRuntimeInSeconds"] for plan in plans(settings, None)} == {30 * 60}


@pytest.mark.parametrize("total", ["0.10", "0.02", "0", "-1", "much", "1e400"])
def test_a_total_that_pays_for_no_run_is_refused(settings: Settings, total: str) -> None:
    with pytest.raises(SpecError, match="nothing was started"):
        plans(settings, total)


class Counted(FolderStore):
    """Notes what is put into it."""

    kinds: list[str]

    def put_tree(self, tree: Tree) -> str:
        self.kinds.append(tree.kind)
        return super().put_tree(tree)


def test_what_all_jobs_read_is_stored_once(settings: Settings, tmp_path: Path) -> None:
    store = Counted(tmp_path)
    store.kinds = []
    with tempfile.TemporaryDirectory() as staging:
        variants = expand({"recipe": "dreambooth"}, ["rank=4,8,16"])
        entries = plan_sweep_on_sagemaker(variants, settings, AwsSettings.placeholder(), Path(staging), {})
        store_trees(entries, store)
    assert sorted(store.kinds) == ["code", "data", "models"]
    assert len({entry.name for entry in entries}) == 3


def test_pictures_are_prepared_for_each_resolution(settings: Settings) -> None:
    variants = expand({"recipe": "dreambooth"}, ["resolution=32,64"])
    entries = entries_of(variants, settings, AwsSettings.placeholder())
    uris = {channel_uris(entry.plan.request)["training"] for entry in entries}
    assert len(uris) == 2


def test_what_is_wrong_with_the_places_of_jobs_is_said_together_and_without_a_secret(settings: Settings) -> None:
    secret = "hf_" + "a1" * 15
    variants = expand({"recipe": "dreambooth"}, ["batch_size=1,100000", f"class_prompt=a monster,{secret}"])
    with pytest.raises(SpecError) as caught:
        entries_of(variants, settings, AwsSettings.placeholder())
    assert [problem.where.partition(":")[0] for problem in caught.value.problems] == [
        "class_prompt=...",
        "batch_size=100000",
    ]
    assert secret not in caught.value.render()


def test_a_job_that_goes_on_by_a_limit_of_its_own_has_to_be_within_its_share() -> None:
    (variant, *_) = with_shares(expand({"recipe": "dreambooth"}, ["rank=4,8"]), "2")
    known: dict[str, Any] = {
        "name": "mine", "target": "sagemaker", "status": JobStatus.STOPPED, "identity": "i",
        "created": "2026-01-01T00:00:00Z",
        "output": "s3://b/o", "region": "eu-west-1", "instance_type": "ml.g5.xlarge",
    }  # fmt: skip
    require_share(variant.spec, JobDescription(**known, runtime_limit_seconds=600))
    with pytest.raises(SpecError, match="total does not pay"):
        require_share(variant.spec, JobDescription(**known, runtime_limit_seconds=4 * 3600))
    unknown = JobDescription(**known | {"instance_type": "ml.unheard-of.xlarge"}, runtime_limit_seconds=600)
    with pytest.raises(SpecError) as caught:
        require_share(variant.spec, unknown)
    assert "mine runs on ml.unheard-of.xlarge, whose price is not known" in caught.value.render()
