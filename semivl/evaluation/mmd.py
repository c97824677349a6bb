"""Two-sample tests by permutation: whether two sets of rows may have been drawn from one distribution.

`mmd_test` is for rows of many numbers: the maximum mean discrepancy (Gretton et al. 2012, section 3), with a kernel
that is the mean of Gaussians around the median distance. `ks_test` is for single numbers: the largest distance between
the two distribution functions (Kolmogorov and Smirnov).

Neither trusts a formula for large samples, nor fears ties. The rows are divided anew at random, as often as asked for,
and the p-value is the share of divisions, the real one included, that are at least as far apart. It is exact for any
number of rows, provided that under equality every division is as likely as any other: the rows are independent, or at
least exchangeable. Frames of one video are not.
"""

from typing import NamedTuple

import numpy as np

MOST = 1000
"""rows of each side that are compared; of more a random part is taken, so that a million cost seconds"""
BANDWIDTHS = (0.5, 1.0, 2.0)
"""of the Gaussians, in medians of the distances"""
_CHUNK = 256
"""divisions worked out at once"""
_ROUNDING = 1e-12
"""by which sums of the same numbers in another order may differ"""


class Tested(NamedTuple):
    """What a test found."""

    statistic: float
    p_value: float


def mmd_test(first: np.ndarray, second: np.ndarray, permutations: int, seed: int = 0, most: int = MOST) -> Tested:
    """The unbiased MMD^2 of rows (n, D) and (m, D), and its p-value; rows that are all equal are no difference."""
    random = np.random.default_rng(seed)
    sides = [subsample(rows, most, random) for rows in (first, second)]
    kernel = gaussian_kernel(np.concatenate(sides))
    if kernel is None:
        return Tested(0.0, 1.0)
    n, m = map(len, sides)
    observed = float(unbiased_mmd(kernel, _divisions(n, m)[:1])[0])
    chunks = (min(_CHUNK, permutations - done) for done in range(0, permutations, _CHUNK))
    drawn = [unbiased_mmd(kernel, random.permuted(_divisions(n, m, count), axis=1)) for count in chunks]
    return Tested(observed, _p_value(observed, np.concatenate(drawn)))


def unbiased_mmd(kernel: np.ndarray, members: np.ndarray) -> np.ndarray:
    """(P,) MMD^2 of P divisions of N rows (Gretton et al. 2012, equation 3); it may be negative.

    Args:
        kernel: (N, N), symmetric; its diagonal counts for nothing.
        members: (P, N) bool, True for the rows of the first set.
    """
    off_diagonal = kernel - np.diag(kernel.diagonal())
    chosen = members.astype(kernel.dtype)
    n = chosen.sum(1)
    m = kernel.shape[0] - n
    of_row = off_diagonal.sum(1)
    within = ((chosen @ off_diagonal) * chosen).sum(1)
    between = chosen @ of_row - within
    others = of_row.sum() - within - 2 * between
    return within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * between / (n * m)


def gaussian_kernel(rows: np.ndarray) -> np.ndarray | None:
    """(N, N) float64: the mean of exp(-d^2 / 2 s^2) over the bandwidths s; None where all rows (N, D) are equal."""
    centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    lengths = (centred**2).sum(1)
    squared = np.maximum(lengths[:, None] + lengths - 2 * centred @ centred.T, 0)
    apart = squared[np.triu_indices(len(rows), 1)]
    apart = apart[apart > _ROUNDING * max(lengths.max(), 1e-300)]
    if not len(apart):
        return None
    median = np.median(apart)
    kernel = np.zeros_like(squared)
    for width in BANDWIDTHS:
        kernel += np.exp(-squared / (2 * width**2 * median)) / len(BANDWIDTHS)
    return kernel


def ks_test(first: np.ndarray, second: np.ndarray, permutations: int, seed: int = 0, most: int = MOST) -> Tested:
    """The largest distance of the distribution functions of (n,) and (m,) numbers, and its p-value."""
    random = np.random.default_rng(seed)
    sides = [subsample(values, most, random) for values in (first, second)]
    pooled = np.concatenate(sides)
    n, m = map(len, sides)
    order = np.argsort(pooled, kind="stable")
    ends = np.append(np.diff(pooled[order]) != 0, True)  # of values that are equal, only behind the last
    observed = float(_ks(_divisions(n, m)[:, order], ends)[0])
    chunks = (min(_CHUNK, permutations - done) for done in range(0, permutations, _CHUNK))
    drawn = [_ks(random.permuted(_divisions(n, m, count), axis=1), ends) for count in chunks]
    return Tested(observed, _p_value(observed, np.concatenate(drawn)))


def subsample(rows: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """The rows, or `most` of them drawn at random where they are more."""
    return rows if len(rows) <= most else rows[random.choice(len(rows), most, replace=False)]


def _divisions(n: int, m: int, count: int = 1) -> np.ndarray:
    """(count, n + m) bool: the real division, n rows of the first set and m of the second."""
    return np.tile(np.arange(n + m) < n, (count, 1))


def _ks(members: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(P,) distances of divisions (P, N) of sorted values."""
    n = int(members[0].sum())
    below = members.cumsum(1)[:, ends]
    others = np.arange(1, members.shape[1] + 1)[ends] - below
    return np.abs(below / n - others / (members.shape[1] - n)).max(1)


def _p_value(observed: float, drawn: np.ndarray) -> float:
    """Share of the divisions at least as far apart, the real one among them (Phipson and Smyth 2010)."""
    return float((1 + (drawn >= observed - _ROUNDING).sum()) / (1 + len(drawn)))
