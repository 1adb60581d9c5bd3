"""Agreement, against figures that were published."""

from itertools import permutations

import pytest

from orchestrator.contract.agreement import equal_choices, ordinal_alpha

_ = 0
# The data of section C of K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011: four people, twelve
# things, gaps.
PEOPLE = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3),
    (_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _),
)


def test_alpha_is_that_of_the_paper_whoever_is_named_first() -> None:
    for people in permutations(PEOPLE):
        units = [tuple(filter(None, unit)) for unit in zip(*people, strict=True)]
        assert ordinal_alpha(units) == pytest.approx(0.815, abs=0.0005)


def test_alpha_of_perfect_agreement_is_one_and_of_disagreement_below_zero() -> None:
    assert ordinal_alpha([(1, 1), (5, 5), (3, 3)]) == 1.0
    opposed = ordinal_alpha([(1, 5), (5, 1)])
    assert opposed is not None
    assert opposed < 0


def test_ratings_far_apart_disagree_more_than_neighbours() -> None:
    near = ordinal_alpha([(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (1, 2)])
    far = ordinal_alpha([(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (1, 5)])
    assert near is not None
    assert far is not None
    assert near > far


def test_there_is_no_alpha_where_nothing_can_be_compared_or_nothing_varies() -> None:
    assert ordinal_alpha([]) is None
    assert ordinal_alpha([(1,), (5,)]) is None
    assert ordinal_alpha([(3, 3), (3, 3, 3)]) is None


def test_the_share_of_equal_choices_counts_pairs_of_people() -> None:
    assert equal_choices([("a", "a"), ("a", "b")]) == 0.5
    assert equal_choices([("a", "a", "b")]) == pytest.approx(1 / 3)
    assert equal_choices([("a",)]) is None
