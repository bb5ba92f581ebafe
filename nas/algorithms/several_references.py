"""Candidates compared with several references over paired seeds, such as the stock models of several members.

Each comparison is that of `nas.algorithms.paired_comparison`, with tests for being better than all references and than
one of them. `benchmarks/verdict_members.py` measures how often they claim what is not so.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from nas.algorithms.arrays import FloatArray
from nas.algorithms.image_variance import ImageVariances
from nas.algorithms.paired_comparison import LEVEL, Comparison, Tests, corrected, holm, tests_of


def compare_with_all(
    accuracies: FloatArray,
    references: Sequence[Sequence[int]],
    *,
    margin: float,
    sampled: Mapping[int, ImageVariances] | None = None,
    level: float | None = LEVEL,
) -> list[tuple[int, Comparison]]:
    """Compare each candidate with several references, of which it has to be better than all.

    A candidate is better than all only if its largest p-value says so, which needs no correction for their number
    (intersection-union test, Berger 1982); Holm's correction is for the candidates. That it is worse, or equivalent, is
    said of the reference with this p-value, which was chosen by the result: these p-values count as often as there were
    references to choose from.

    Args:
        accuracies: `(models, seeds)`, the candidates last.
        references: of each candidate, by their rows, at least one. Candidates may be references of others.
        sampled: for each reference, by its row, the variances of the differences of `rows_beside` to it over samples
            of images.

    Returns:
        For each candidate the reference that it is least clearly better than, and how it compares with that.
    """
    each = _tests_beside_each(accuracies, references, margin, sampled)
    chosen = [max(rows, key=lambda row: each[row].better[index]) for index, rows in enumerate(references)]
    times, tests = np.array([len(rows) for rows in references]), _picked(each, chosen)
    tests = tests._replace(worse=np.minimum(tests.worse * times, 1), apart=np.minimum(tests.apart * times, 1))
    return list(zip(chosen, corrected(tests, level, holm(tests.better)), strict=True))


def compare_with_own(
    accuracies: FloatArray,
    references: Sequence[Sequence[int]],
    own: Sequence[int | None],
    overall: Sequence[Comparison],
    *,
    margin: float,
    sampled: Mapping[int, ImageVariances] | None = None,
    level: float | None = LEVEL,
) -> list[Comparison | None]:
    """Compare each candidate with one reference of its own, beside its comparison with all of its references.

    That a candidate is better than its own reference is a claim, too, and claims of both kinds together stay within the
    level. Being better than its own is part of being better than all; it is tested first, with the candidate's share
    of the level, which then tests "better than all" (`before_holm`). So `overall` is as it would be alone. A reference
    that is not among the candidate's has no place in that order: nothing better than it is claimed.

    Args:
        accuracies: `(models, seeds)`, the candidates last.
        references: of each candidate, by their rows.
        own: row of each candidate's own reference; None for a candidate without, which has no result.
        overall: of `compare_with_all` with these references.
        sampled: as there, for the own references as well.
    """
    rows = [among[0] if row is None else row for row, among in zip(own, references, strict=True)]
    tests = _picked(_tests_beside_each(accuracies, [[row] for row in rows], margin, sampled), rows)
    better = before_holm(tests.better, np.array([one.p_better for one in overall]))
    is_among = [row in among for row, among in zip(rows, references, strict=True)]
    found = corrected(tests, level, np.where(is_among, better, 1.0))
    return [None if row is None else one for row, one in zip(own, found, strict=True)]


def rows_beside(models: int, references: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """Return the rows of the candidates that are compared with each reference, by its row: all but itself.

    Args:
        models: number of rows, the candidates last.
        references: of each candidate.
    """
    candidates = range(models - len(references), models)
    return {
        row: [one for one in candidates if one != row] for row in sorted({row for rows in references for row in rows})
    }


def before_holm(p_values: FloatArray, second: FloatArray) -> FloatArray:
    """Correct p-values of tests that come before others, one for each, which Holm's procedure has corrected.

    A graphical procedure (Bretz and others 2009): each of n candidates has an n-th of the level, with which it passes
    its first test, and then its second one; what has passed both is divided among the others. All tests together reject
    a true hypothesis at most as often as the level says.

    Args:
        p_values: of the first tests, each at most that of the second test; `(tests,)`.
        second: corrected ones of the second tests.
    """
    others = np.arange(len(p_values), 0, -1)[:, None]
    passed = np.concatenate([[0.0], np.sort(second)[:-1]])[:, None]
    return np.minimum(np.maximum(passed, others * p_values).min(axis=0), 1.0)


def _tests_beside_each(
    accuracies: FloatArray,
    references: Sequence[Sequence[int]],
    margin: float,
    sampled: Mapping[int, ImageVariances] | None,
) -> dict[int, Tests]:
    """Test all candidates beside each reference, by its row; a reference that is a candidate has nan beside itself."""
    values = np.asarray(accuracies, dtype=np.float64)
    first, found = len(values) - len(references), {}
    for row, rows in rows_beside(len(values), references).items():
        tests = tests_of(values[[row, *rows]], margin, None if sampled is None else sampled[row])
        found[row] = tests if row < first else Tests(*(np.insert(each, row - first, np.nan) for each in tests))
    return found


def _picked(each: Mapping[int, Tests], rows: Sequence[int]) -> Tests:
    """Return each candidate's tests beside the reference of one row."""
    found = [[values[index] for values in each[row]] for index, row in enumerate(rows)]
    return Tests(*np.array(found).T)
