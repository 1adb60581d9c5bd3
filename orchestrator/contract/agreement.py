"""How far people agree about the same samples."""

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import combinations

_COMPARED = 2  # judgements of one thing, at least


def ordinal_alpha(units: Iterable[Collection[int]]) -> float | None:
    """Return Krippendorff's alpha for ordinal values, or None when nothing can be compared.

    Each unit holds the values that several people gave to one thing; units with fewer than two are left out, and people
    may be different ones from unit to unit. 1 is perfect agreement, 0 what chance would give, and less than 0 means
    that people disagree systematically. None too where all values are equal: nothing varies, so that agreement cannot
    be told from a habit of one answer.

    The ordinal metric counts how many values lie between two: 1 and 5 differ more than 4 and 5, and by how much follows
    from how often each rating was given, not from the numbers that stand for them.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, section E, with the ordinal metric:
    https://repository.upenn.edu/asc_papers/43/
    """
    pairable = [unit for unit in units if len(unit) >= _COMPARED]
    coincidences = _coincidences(pairable)
    marginals: Counter[int] = Counter()  # n_c
    for unit in pairable:
        marginals.update(unit)
    values = sorted(marginals)
    observed = 0.0
    expected = 0.0
    for c, k in combinations(values, 2):
        between = 0
        for g in values:
            if c <= g <= k:
                between += marginals[g]
        ends = (marginals[c] + marginals[k]) / 2
        distance = (between - ends) ** 2  # delta^2 of the ordinal metric
        observed += coincidences.get((c, k), 0.0) * distance
        expected += marginals[c] * marginals[k] * distance
    if expected == 0.0:
        return None
    total = marginals.total()
    return 1.0 - (total - 1) * observed / expected


def _coincidences(units: Iterable[Collection[int]]) -> dict[tuple[int, int], float]:
    """Return o_ck for c <= k: how often two people gave c and k.

    A unit with m_u values has m_u (m_u - 1) / 2 pairs; each is weighted by 1 / (m_u - 1), so that the unit counts by
    its number of values. The paper's matrix is symmetric and counts each pair twice, once in either order.
    """
    coincidences: dict[tuple[int, int], float] = {}
    for unit in units:
        weight = 1 / (len(unit) - 1)
        for one, other in combinations(sorted(unit), 2):
            before = coincidences.get((one, other), 0.0)
            coincidences[one, other] = before + weight
    return coincidences


def equal_choices(units: Iterable[Collection[str]]) -> float | None:
    """Return the share of equal choices among all that two people made of the same pair; None without any.

    Each unit holds what several people chose of one pair. This is observed agreement, A_o in R. Artstein and
    M. Poesio, "Inter-Coder Agreement for Computational Linguistics", 2008, section 2.3; chance alone gives one half.
    https://aclanthology.org/J08-4004/
    """
    equal = 0
    compared = 0
    for unit in units:
        for one, other in combinations(unit, 2):
            compared += 1
            if one == other:
                equal += 1
    if compared == 0:
        return None
    return equal / compared
