from datetime import date
from decimal import Decimal
from functools import cache

import pytest
from botocore.loaders import Loader

from orchestrator.aws.instances import about, fallbacks, instance, instances, price, prices_as_of


@cache
def types_of_the_service() -> set[str]:
    model = Loader().load_service_model("sagemaker", "service-2")
    return {*model["shapes"]["TrainingInstanceType"]["enum"]}


def test_the_table_says_when_it_was_read_and_what_is_approximate() -> None:
    assert date(2026, 1, 1) < prices_as_of()
    assert "https://aws.amazon.com/sagemaker/pricing/" in about()["note"]
    assert about()["approximate"]


def test_every_instance_is_one_the_service_has() -> None:
    assert instances().keys() <= types_of_the_service()


def test_every_gpu_type_of_the_service_is_in_the_table_or_refused_with_its_own_reason() -> None:
    unexplained = []
    for name in types_of_the_service():
        if not name.startswith(("ml.g", "ml.p")):
            continue
        try:
            instance(name)
        except ValueError as error:
            if "no instance type" in str(error):
                unexplained.append(name)
    assert unexplained == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("ml.g5.xlarg", 'did you mean "ml.g5.xlarge"'),
        ("g5.xlarge", 'did you mean "ml.g5.xlarge"'),
        ("ml.m5.xlarge", "has no GPU"),
        ("ml.c7i-flex.large", "has no GPU"),
        ("ml.t3.medium", "has no GPU"),
        ("ml.trn1.32xlarge", "AWS's own chips"),
        ("ml.p3.2xlarge", "too old"),
        ("ml.p6e-gb200.36xlarge", "Arm processors"),
        ("ml.p9.48xlarge", "no instance type"),
        ("", "no instance type"),
    ],
)
def test_what_cannot_train_is_refused_with_the_reason_and_an_alternative(wrong: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"ml\.[gp]") as raised:
        instance(wrong)
    assert said in str(raised.value)


def test_prices_of_other_regions_are_marked_as_worked_out() -> None:
    here, there = price(instance("ml.g5.xlarge"), "us-east-1"), price(instance("ml.g5.xlarge"), "eu-central-1")
    assert here is not None
    assert there is not None
    assert not here.approximate
    assert there.approximate
    assert here.usd_per_hour == Decimal("1.4080") < there.usd_per_hour < 2


def test_an_unknown_region_costs_as_much_as_the_dearest_known_one() -> None:
    chosen = instance("ml.g6.xlarge")
    unknown, dearest = price(chosen, "xx-nowhere-9"), price(chosen, "sa-east-1")
    assert unknown is not None
    assert dearest is not None
    assert unknown.usd_per_hour == dearest.usd_per_hour
    assert unknown.approximate


@pytest.mark.parametrize("name", ["ml.g4dn.xlarge", "ml.g5.xlarge", "ml.g5.12xlarge", "ml.p5.48xlarge"])
def test_a_fallback_runs_the_same_job_with_no_less_memory(name: str) -> None:
    chosen = instance(name)
    found = fallbacks(chosen)
    assert found
    assert chosen not in found
    prices = [one.usd_per_hour for one in found if one.usd_per_hour is not None]
    assert prices == sorted(prices)
    assert len(prices) == len(found), "a type without a price stands in for one with a price"
    for one in found:
        assert (one.gpus, one.gpu.usable_gib >= chosen.gpu.usable_gib) == (chosen.gpus, True)


def test_a_model_of_gpu_that_is_short_is_not_the_only_thing_to_fall_back_on() -> None:
    models = {one.gpu.name for one in fallbacks(instance("ml.g5.xlarge"))}
    assert len(models - {"A10G"}) >= 3


def test_the_largest_has_nothing_larger_to_fall_back_on() -> None:
    assert fallbacks(instance("ml.g7e.48xlarge")) == []
