"""The maximum of Prophet's posterior for many series at once.

For each series, with s2 = sigma^2, T points and SSR the squared residuals, the log-posterior is

    -T/2 ln s2 - SSR / (2 s2) - 1/2 (theta - mu)' D (theta - mu) - |delta|_1 / tau - 2 s2

The data enter only as G = X'X, C = X'y and y'y, so iterations never touch the points. Given s2 it is a lasso on
delta with ridges beside it, which are solved for. ADMM (delta = z, soft threshold) guesses which deltas are not zero;
then the system on that support is solved exactly, checked against the conditions of the optimum, and the support
mended until they hold. Given theta, s2 = (-T + sqrt(T^2 + 16 SSR)) / 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array

RHO = 5e-5
"""ADMM's penalty on delta - z, for each point."""
RELAX = 1.6
ROUGH = 90
"""ADMM iterations: they only guess the support, at little cost for each."""
PIVOTS = 250
"""Exact solves after which a series is given up as not exact."""
SIZES = (4, 8, 16)
"""Supports are padded to the next of these sizes and solved together."""
SLACK = 1e-6
"""Relative tolerance of the conditions of the optimum."""
SETTLED = 1e-4
"""Relative change of s2 at which it stands: an error of e costs T e^2 / 4 of log-posterior."""
DIGITS = 1e-15
"""What a residual computed from y'y can be relative to it before it is rounding alone."""
LEAST_VARIANCE = 1e-18


@dataclass(frozen=True, slots=True)
class Problem:
    """N series and what their fit needs.

    Attributes:
        gram: X'X, (P, P) if all series share it, else (N, P, P).
        cross: X'y, (N, P).
        square: y'y, (N,).
        points: T, (N,).
        precision: D, (P,).
        centre: mu, (N, P): prior means.
        kinks: columns with the Laplace prior.
        tau: its scale.
    """

    gram: Array
    cross: Array
    square: Array
    points: Array
    precision: Array
    centre: Array
    kinks: slice
    tau: float

    def part(self, keep: npt.NDArray[np.intp]) -> Problem:
        """The problem of some of the series."""
        gram = self.gram if self.gram.ndim == 2 else self.gram[keep]
        return Problem(
            gram,
            self.cross[keep],
            self.square[keep],
            self.points[keep],
            self.precision,
            self.centre[keep],
            self.kinks,
            self.tau,
        )


@dataclass(frozen=True, slots=True)
class Solution:
    """Coefficients (N, P), variances (N,), and whether the conditions of the optimum were met (N,)."""

    theta: Array
    s2: Array
    exact: npt.NDArray[np.bool_]


def solve(problem: Problem) -> Solution:
    """The best coefficients and variance of every series."""
    lasso = _Lasso(problem)
    delta, s2 = lasso.guess()
    return _exact(problem, lasso, delta, s2)


def best_variance(ssr: Array, points: Array) -> Array:
    """s2 = (-T + sqrt(T^2 + 16 SSR)) / 8 without its cancellation, of squared residuals (N,) of T points (N,)."""
    best = 2.0 * ssr / (points + np.sqrt(points**2 + 16.0 * ssr))
    return np.asarray(np.maximum(best, LEAST_VARIANCE))


class _Lasso:
    """The problem with everything but the kinks solved for: a lasso of K columns for given s2.

    The rest r (slope, offset, cycles) is ridge alone: theta_r = R (C_r + s2 D_r mu_r - G_rk delta) with
    R = (G_rr + s2 D_r)^-1 = B diag(1 / (L + s2)) B'. What remains is A delta = b - (s2 / tau) sign(delta), with
    A = G_kk - G_kr R G_rk.
    """

    def __init__(self, problem: Problem) -> None:
        width = problem.cross.shape[1]
        kink = np.zeros(width, dtype=bool)
        kink[problem.kinks] = True
        self.kink, self.rest = np.flatnonzero(kink), np.flatnonzero(~kink)
        self.problem = problem
        gram, root = problem.gram, 1.0 / np.sqrt(problem.precision[self.rest])
        inner = gram[..., self.rest[:, None], self.rest] * root[:, None] * root
        values, vectors = np.linalg.eigh(inner)
        self.values = np.maximum(values, 0.0)
        self.basis = root[:, None] * vectors
        self.kinks = gram[..., self.kink[:, None], self.kink]
        self.across = gram[..., self.kink[:, None], self.rest] @ self.basis
        self.inside = _times(problem.cross[:, self.rest], self.basis)

    def part(self, keep: npt.NDArray[np.intp]) -> _Lasso:
        """Of some of the series."""
        other = _Lasso.__new__(_Lasso)
        other.problem, other.inside = self.problem.part(keep), self.inside[keep]
        other.kink, other.rest = self.kink, self.rest
        own = self.values.ndim == 2
        other.values, other.basis = (self.values[keep], self.basis[keep]) if own else (self.values, self.basis)
        other.kinks, other.across = (self.kinks[keep], self.across[keep]) if own else (self.kinks, self.across)
        return other

    def guess(self) -> tuple[Array, Array]:
        """Deltas (N, K) and s2 (N,) near the optimum, by ADMM with the ridges at s2 = 0."""
        p = self.problem
        least = 1e-12 * self.values.max(axis=-1, keepdims=True)
        weight = 1.0 / np.maximum(self.values, least)
        matrix = self.kinks - (self.across * weight[..., None, :]) @ np.swapaxes(self.across, -1, -2)
        right = p.cross[:, self.kink] - _times(self.inside * weight, np.swapaxes(self.across, -1, -2))
        flat = np.maximum(p.square - (self.inside**2 * weight).sum(axis=1), DIGITS * p.square)
        rho = RHO * (p.points if matrix.ndim == 3 else p.points.max())
        inverse = np.linalg.inv(matrix + np.asarray(rho)[..., None, None] * np.eye(len(self.kink)))
        still = RELAX * _times(right, inverse)
        inverse = RELAX * np.asarray(rho)[..., None, None] * inverse
        weights = np.asarray(rho)[..., None] if matrix.ndim == 3 else rho
        z, u, s2 = np.zeros_like(right), np.zeros_like(right), best_variance(flat, p.points)
        for i in range(ROUGH):
            free = still + _times(z - u, inverse)
            free += (1 - RELAX) * z
            free += u
            if i in (2, 9, 24, 50, 80):
                ssr = flat - np.einsum("nk,nk->n", z, 2 * right - _times(z, matrix))
                s2 = best_variance(np.clip(ssr, DIGITS * p.square, p.square), p.points)
            edge = (s2 / p.tau)[:, None] / weights
            z = free - np.clip(free, -edge, edge)
            u = free - z
        return z, s2

    def system(self, s2: Array) -> tuple[Array, Array, Array]:
        """A (N, K, K), b (N, K), and B' (C_r + s2 D_r mu_r) / (L + s2), (N, R)."""
        problem = self.problem
        weight = 1.0 / (self.values + s2[:, None])
        pull = problem.precision[self.rest] * problem.centre[:, self.rest]
        right = (self.inside + s2[:, None] * _times(pull, self.basis)) * weight
        flipped = np.swapaxes(self.across, -1, -2)
        if self.across.ndim == 2:  # one product of matrices instead of N
            pairs = (self.across[:, None, :] * self.across).reshape(-1, len(self.rest)).T
            matrix = self.kinks - (weight @ pairs).reshape(len(s2), *self.kinks.shape)
        else:
            matrix = self.kinks - (self.across * weight[:, None, :]) @ flipped
        # More columns than rows may make it singular: nobody else's fit must fail for that.
        np.einsum("nii->ni", matrix)[:] += DIGITS * np.einsum("...ii->...i", self.kinks)
        return matrix, problem.cross[:, self.kink] - _times(right, flipped), right

    def complete(self, delta: Array, right: Array, s2: Array) -> tuple[Array, Array]:
        """All coefficients (N, P) for given deltas, and the best s2 (N,) for those.

        The residual is summed in the basis B, where nothing cancels: the cycles of a short history are near-collinear,
        and their coefficients huge.
        """
        p, across = self.problem, _times(delta, self.across)
        rest = right - across / (self.values + s2[:, None])
        theta = np.empty((len(delta), len(self.kink) + len(self.rest)))
        theta[:, self.rest] = _times(rest, np.swapaxes(self.basis, -1, -2))
        theta[:, self.kink] = delta
        ssr = p.square - np.einsum("nr,nr->n", rest, 2.0 * (self.inside - across) - self.values * rest)
        ssr -= np.einsum("nk,nk->n", delta, 2.0 * p.cross[:, self.kink] - _times(delta, self.kinks))
        return theta, best_variance(np.maximum(ssr, DIGITS * p.square), p.points)


def _exact(problem: Problem, lasso: _Lasso, delta: Array, s2: Array) -> Solution:
    """From a guess to the optimum: solve on the support, check all conditions, mend the support.

    A step ends where the first sign turns: each then raises the posterior, so none leads round in circles.
    """
    theta = np.zeros(problem.cross.shape)
    exact, todo = np.zeros(len(s2), dtype=bool), np.arange(len(s2))
    sign, final = np.sign(delta), s2.copy()
    for _ in range(PIVOTS):
        matrix, right, rest = lasso.system(s2)
        edge = (s2 / problem.tau)[:, None]
        target = _on_support(matrix, right - edge * sign, sign != 0)
        delta, turned = _until_a_sign_turns(delta, target, np.sign(target) != sign)
        full, now = lasso.complete(delta, rest, s2)
        slope = right - np.einsum("nij,nj->ni", matrix, delta)
        blur = DIGITS * np.sqrt(np.abs(np.einsum("nii->ni", matrix)) * lasso.problem.square[:, None])
        missing = (sign == 0) & (np.abs(slope) > edge * (1 + SLACK) + blur)
        settled = np.abs(now - s2) <= SETTLED * s2 + DIGITS * lasso.problem.square / lasso.problem.points
        good = settled & ~turned & ~missing.any(axis=1)
        theta[todo], final[todo], exact[todo] = full, now, good
        if good.all():
            break
        # One column enters at a time, the one that wants most, and only once all that are in keep their signs.
        wants = np.where(missing, np.abs(slope), 0.0)
        enters = missing & (wants == wants.max(axis=1, keepdims=True, initial=0.0)) & ~turned[:, None]
        sign = np.where(enters, np.sign(slope), np.sign(delta))
        s2 = now
        if good.any():
            keep = np.flatnonzero(~good)
            todo, lasso, sign, s2, delta = todo[keep], lasso.part(keep), sign[keep], s2[keep], delta[keep]
    return Solution(theta, final, exact)


def _until_a_sign_turns(
    delta: Array, target: Array, wrong: npt.NDArray[np.bool_]
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """As far from `delta` to `target` as all signs allow, and for which series (N,) that was not all the way."""
    share = np.where(wrong, delta / np.where(wrong, delta - target, 1.0), 1.0)
    least = np.clip(share.min(axis=1, keepdims=True, initial=1.0), 0.0, 1.0)
    reached = delta + least * (target - delta)
    return np.where(wrong & (share <= least), 0.0, reached), np.asarray(wrong.any(axis=1))


def _on_support(matrix: Array, right: Array, there: npt.NDArray[np.bool_]) -> Array:
    """Solve matrix (N, K, K) delta = right (N, K) on each series' own support; 0 elsewhere."""
    delta = np.zeros(there.shape)
    sizes = there.sum(axis=1)
    least = 0
    for most in (*(size for size in SIZES if size < there.shape[1]), there.shape[1]):
        some = np.flatnonzero((sizes > least) & (sizes <= most))
        least = most
        if not len(some):
            continue
        # The columns of each support first, in order; what fills the rest up is an identity.
        order = np.argsort(~there[some], axis=1, kind="stable")[:, :most]
        used = np.take_along_axis(there[some], order, axis=1)
        small = matrix[some[:, None, None], order[:, :, None], order[:, None, :]]
        small *= used[:, :, None] & used[:, None, :]
        diagonal = np.arange(most)
        small[:, diagonal, diagonal] += ~used
        rows = some[:, None]
        delta[rows, order] = np.linalg.solve(small, (right[rows, order] * used)[:, :, None])[:, :, 0]
    return delta


def _times(rows: Array, matrix: Array) -> Array:
    """Rows (N, A) times a shared matrix (A, B) or each row times its own (N, A, B)."""
    if matrix.ndim == 2:
        return rows @ matrix
    return np.asarray((rows[:, None, :] @ matrix)[:, 0, :])
