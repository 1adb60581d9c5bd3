from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.aws.instances import Instance, instance, priced
from orchestrator.planning.pricing import actual, dollars, hourly, runtime_for, worst_case
from orchestrator.specs.compute import Compute

G5 = instance("ml.g5.xlarge")
HOME = "us-east-1"
UPLOAD = 60  # seconds


def most(chosen: Instance, compute: Compute, seconds: int) -> Decimal:
    usd = worst_case(chosen, compute, HOME, seconds, UPLOAD).usd
    assert usd is not None
    return usd


def test_the_worst_case_is_the_price_of_all_instances_until_the_last_second() -> None:
    worst = worst_case(G5, Compute(instance_count=3), HOME, 3600, 60)
    assert worst.usd == Decimal("4.44")  # 3 x 1.408 x (3600 + 120 + 60 s) / 3600 = 4.4352, rounded up
    assert worst.usd_per_hour == Decimal("4.2240")
    assert not worst.approximate


def test_a_volume_costs_only_where_no_disk_is_built_in() -> None:
    bare = G5.model_copy(update={"disk_gb": None})
    small, large = Compute(volume_gb=1), Compute(volume_gb=10_000)
    assert hourly(G5, large, HOME) == hourly(G5, small, HOME)
    assert (hourly(bare, large, HOME) or 0) > (hourly(bare, small, HOME) or 0)


def test_spot_has_a_likely_range_and_the_worst_case_of_on_demand() -> None:
    spot, on_demand = (worst_case(G5, Compute(spot=spot), HOME, 7200, UPLOAD) for spot in (True, False))
    assert spot.usd == on_demand.usd
    assert spot.spot_usd is not None
    assert spot.usd is not None
    assert spot.spot_usd[0] < spot.spot_usd[1] < spot.usd
    low, high = (dollars(end) for end in spot.spot_usd)
    most = dollars(spot.usd or Decimal(0))
    saved = f"at its limit {low} to {high} with the usual saving of spot, which is not promised"
    assert spot.describe().startswith(f"{saved}, and at most {most}, without any saving (")
    assert on_demand.spot_usd is None


def test_an_approximate_price_is_said_to_be_one() -> None:
    assert "about" in worst_case(G5, Compute(), "eu-west-1", 3600, UPLOAD).describe()
    assert "about" not in worst_case(G5, Compute(), HOME, 3600, UPLOAD).describe()


@settings(deadline=None)  # how quick the machine is, is no question here
@given(
    usd=st.decimals("0.35", "10000", places=3),
    chosen=st.sampled_from(priced()),
    count=st.integers(1, 8),
)
def test_a_job_limited_by_a_budget_never_costs_more(usd: Decimal, chosen: Instance, count: int) -> None:
    compute = Compute(instance_count=count)
    try:
        seconds = runtime_for(usd, chosen, compute, HOME, UPLOAD)
    except ValueError:
        assert most(chosen, compute, 300) > usd
        return
    assert seconds >= 300
    assert most(chosen, compute, seconds) <= usd
    assert most(chosen, compute, seconds + 60) > usd - Decimal("0.01")


def test_a_budget_too_small_to_train_says_what_would_do() -> None:
    with pytest.raises(ValueError, match=r"allow at least \$0\.19") as raised:
        runtime_for(Decimal("0.10"), G5, Compute(), HOME, UPLOAD)
    assert "pays for 1 minute of" in str(raised.value)
    assert runtime_for(Decimal("0.19"), G5, Compute(), HOME, UPLOAD) >= 300


def test_the_actual_cost_comes_from_billable_seconds_of_every_instance() -> None:
    assert actual(G5, 1, HOME, 3600) == G5.usd_per_hour
    assert actual(G5, 2, HOME, 90) == Decimal("0.0704")
    assert actual(G5, 1, HOME, 0) == 0


@pytest.mark.parametrize(
    ("usd", "text"), [("1234.5", "$1,234.50"), ("0.0704", "$0.0704"), ("0", "$0.00"), ("3", "$3.00")]
)
def test_money_is_written_as_people_write_it(usd: str, text: str) -> None:
    assert dollars(Decimal(usd)) == text


def test_the_upload_after_the_stop_is_paid_for_and_no_upper_end_is_promised() -> None:
    """Billing ends when the result is uploaded: a full model takes longer than an adapter."""
    quick, slow = (worst_case(G5, Compute(), HOME, 3600, seconds) for seconds in (60, 600))
    assert quick.usd is not None
    assert slow.usd is not None
    assert quick.usd < slow.usd
    assert "12 minutes to stop and upload included, which may take longer" in slow.describe()
    usd = Decimal(2)
    assert runtime_for(usd, G5, Compute(), HOME, 600) == runtime_for(usd, G5, Compute(), HOME, 60) - 540


def test_a_type_without_a_known_price_has_no_worst_case_no_cost_and_no_budget() -> None:
    unpriced = instance("ml.p6-b200.48xlarge")
    worst = worst_case(unpriced, Compute(), HOME, 3600, UPLOAD)
    assert (worst.usd, worst.usd_per_hour, worst.limit()) == (None, None, "no price is known")
    assert worst.describe().startswith("unknown: the price list of ")
    assert actual(unpriced, 1, HOME, 3600) is None
    with pytest.raises(ValueError, match=r"no price of ml\.p6-b200\.48xlarge is known"):
        runtime_for(Decimal(100), unpriced, Compute(), HOME, UPLOAD)
