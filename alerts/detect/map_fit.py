"""The maximum of Prophet's posterior for many series at once.

For each series, with s2 = sigma^2, T points and SSR the squared residuals, the log-posterior is

    -T/2 ln s2 - SSR / (2 s2) - 1/2 (theta - mu)' D (theta - mu) - |delta|_1 / tau - 2 s2

The data enter only as G = X'X, C = X'y and y'y, so iterations never touch the points. Given s2 it is a lasso on
delta with ridges beside it: ADMM (delta = z, soft threshold) finds which deltas are not zero, then the system on
that support is solved exactly and checked against the conditions of the optimum; where they fail, ADMM goes on.
Given theta, s2 = (-T + sqrt(T^2 + 16 SSR)) / 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array

RHO = 40.0
RELAX = 1.6
FIRST = 40
"""ADMM iterations before the first exact solve."""
MORE = 40
"""Iterations before each further one."""
ROUNDS = 30
PIVOTS = 16
"""Exact solves in a row, each with the support that the last one suggests."""
SLACK = 1e-6
"""Relative tolerance of the conditions of the optimum."""
SETTLED = 1e-4
"""Relative change of s2 at which it stands: an error of e costs T e^2 / 4 of log-posterior."""
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

    def product(self, theta: Array) -> Array:
        """G theta, (N, P)."""
        return _times(theta, self.gram)

    def residual(self, theta: Array) -> Array:
        """Squared residuals (N,); never below what doubles can tell from 0."""
        ssr: Array = self.square - np.einsum("np,np->n", theta, 2 * self.cross - self.product(theta))
        return np.asarray(np.maximum(ssr, 1e-15 * np.maximum(self.square, 1e-300)))

    def variance(self, theta: Array) -> Array:
        """The best s2 (N,) for given coefficients."""
        return self.best_variance(self.residual(theta), self.points)

    @staticmethod
    def best_variance(ssr: Array, points: Array) -> Array:
        """(-T + sqrt(T^2 + 16 SSR)) / 8 without its cancellation."""
        best = 2.0 * ssr / (points + np.sqrt(points**2 + 16.0 * ssr))
        return np.asarray(np.maximum(best, LEAST_VARIANCE))

    def log_posterior(self, theta: Array, s2: Array) -> Array:
        """(N,), up to the constants that Stan drops as well."""
        away = theta - self.centre
        height: Array = (
            -0.5 * self.points * np.log(s2)
            - self.residual(theta) / (2 * s2)
            - 0.5 * (away * away) @ self.precision
            - np.abs(theta[:, self.kinks]).sum(axis=1) / self.tau
            - 2 * s2
        )
        return height


def join(problems: list[Problem]) -> Problem:
    """One problem of several with the same columns; each series then has its own Gram matrix."""
    first = problems[0]
    grams = [np.broadcast_to(p.gram, (len(p.square), *p.gram.shape[-2:])) for p in problems]
    return Problem(
        np.concatenate(grams),
        np.concatenate([p.cross for p in problems]),
        np.concatenate([p.square for p in problems]),
        np.concatenate([p.points for p in problems]),
        first.precision,
        np.concatenate([p.centre for p in problems]),
        first.kinks,
        first.tau,
    )


@dataclass(frozen=True, slots=True)
class Solution:
    """Coefficients (N, P), variances (N,), and whether the conditions of the optimum were met (N,)."""

    theta: Array
    s2: Array
    exact: npt.NDArray[np.bool_]


def solve(problem: Problem) -> Solution:
    """The best coefficients and variance of every series."""
    series, width = problem.cross.shape
    theta, s2 = np.zeros((series, width)), np.zeros(series)
    exact = np.zeros(series, dtype=bool)
    left = np.arange(series)
    work, state, reduced = problem, _Admm(problem), _Reduced(problem)
    for round_ in range(ROUNDS):
        state.run(FIRST if round_ == 0 else MORE)
        found, variance, good = _exact(work, reduced, state.z, state.s2)
        last = round_ == ROUNDS - 1
        done = good | last
        theta[left[done]], s2[left[done]], exact[left[done]] = found[done], variance[done], good[done]
        if done.all():
            break
        keep = np.flatnonzero(~done)
        left, work = left[keep], work.part(keep)
        state, reduced = state.part(keep, work), reduced.part(keep)
    return Solution(theta, s2, exact)


class _Admm:
    """Alternating directions on delta = z for all series of a problem."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        metric = problem.precision.copy()
        metric[problem.kinks] = RHO
        root = 1.0 / np.sqrt(metric)
        values, vectors = np.linalg.eigh(problem.gram * root[:, None] * root)
        self._values = np.maximum(values, 0.0)
        self._basis = vectors * (root[:, None] if vectors.ndim == 2 else root[None, :, None])
        kinks = problem.kinks.stop - problem.kinks.start
        series = len(problem.square)
        self.z = np.zeros((series, kinks))
        self._u = np.zeros((series, kinks))
        self.s2 = problem.square / problem.points + LEAST_VARIANCE
        self._prepare()

    def _prepare(self) -> None:
        p = self._problem
        shared = self._basis.ndim == 2
        self._kink_rows = self._basis[p.kinks] if shared else self._basis[:, p.kinks]
        self._cross = _times(p.cross, self._basis)
        self._pull = _times(p.centre * p.precision, self._basis)

    def part(self, keep: npt.NDArray[np.intp], problem: Problem) -> _Admm:
        """The state of some of the series, to go on with."""
        other = _Admm.__new__(_Admm)
        own = self._basis.ndim == 3
        other._problem = problem
        other._values = self._values[keep] if own else self._values
        other._basis = self._basis[keep] if own else self._basis
        other.z, other._u, other.s2 = self.z[keep], self._u[keep], self.s2[keep]
        other._prepare()
        return other

    def run(self, iterations: int) -> None:
        problem = self._problem
        threshold = 1.0 / (RHO * problem.tau)
        back = np.swapaxes(self._kink_rows, -1, -2)
        z, u = self.z, self._u
        for i in range(iterations):
            s2 = self.s2[:, None]
            inside = self._cross + s2 * (self._pull + RHO * _times(z - u, self._kink_rows))
            inside /= self._values + s2
            if i in (2, 9, 24):
                self.s2 = problem.variance(_times(inside, np.swapaxes(self._basis, -1, -2)))
            delta = RELAX * _times(inside, back) + (1 - RELAX) * z
            free = delta + u
            z = np.sign(free) * np.maximum(np.abs(free) - threshold, 0.0)
            u = free - z
        self.z, self._u = z, u


class _Reduced:
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
        gram, root = problem.gram, 1.0 / np.sqrt(problem.precision[self.rest])
        inner = gram[..., self.rest[:, None], self.rest] * root[:, None] * root
        values, vectors = np.linalg.eigh(inner)
        self.values = np.maximum(values, 0.0)
        self.basis = root[:, None] * vectors
        self.kinks = gram[..., self.kink[:, None], self.kink]
        self.across = gram[..., self.kink[:, None], self.rest] @ self.basis

    def part(self, keep: npt.NDArray[np.intp]) -> _Reduced:
        """Of some of the series."""
        if self.values.ndim == 1:
            return self
        other = _Reduced.__new__(_Reduced)
        other.kink, other.rest = self.kink, self.rest
        other.values, other.basis = self.values[keep], self.basis[keep]
        other.kinks, other.across = self.kinks[keep], self.across[keep]
        return other

    def system(self, problem: Problem, s2: Array) -> tuple[Array, Array, Array]:
        """A (N, K, K), b (N, K), and C_r + s2 D_r mu_r in the basis B (N, R), already times 1 / (L + s2)."""
        weight = 1.0 / (self.values + s2[:, None])
        pull = problem.precision[self.rest] * problem.centre[:, self.rest]
        right = _times(problem.cross[:, self.rest] + s2[:, None] * pull, self.basis) * weight
        flipped = np.swapaxes(self.across, -1, -2)
        matrix = self.kinks - (self.across * weight[:, None, :]) @ flipped
        return matrix, problem.cross[:, self.kink] - _times(right, flipped), right

    def complete(self, delta: Array, right: Array, s2: Array) -> Array:
        """All coefficients (N, P) for given deltas."""
        inside = right - _times(delta, self.across) / (self.values + s2[:, None])
        theta = np.empty((len(delta), len(self.kink) + len(self.rest)))
        theta[:, self.rest] = _times(inside, np.swapaxes(self.basis, -1, -2))
        theta[:, self.kink] = delta
        return theta


def _exact(problem: Problem, reduced: _Reduced, z: Array, s2: Array) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Solve on the support of `z` and check; returns coefficients, variances and where all conditions hold."""
    sign = np.sign(z)
    theta = np.zeros(problem.cross.shape)
    good = np.zeros(len(s2), dtype=bool)
    s2 = s2.copy()
    todo = np.arange(len(s2))
    for _ in range(PIVOTS):
        part, some, signs, variance = problem.part(todo), reduced.part(todo), sign[todo], s2[todo]
        matrix, right, rest = some.system(part, variance)
        edge = (variance / part.tau)[:, None]
        delta = _on_support(matrix, right - edge * signs, signs != 0)
        slope = right - np.einsum("nij,nj->ni", matrix, delta)
        wrong = (signs != 0) & (np.sign(delta) != signs)
        missing = (signs == 0) & (np.abs(slope) > edge * (1 + SLACK))
        theta[todo] = some.complete(delta, rest, variance)
        s2[todo] = part.variance(theta[todo])
        settled = np.abs(s2[todo] - variance) <= SETTLED * variance
        good[todo] = settled & ~(wrong | missing).any(axis=1)
        # One column enters at a time, the one that wants most; all that changed their sign leave.
        most = np.max(np.where(missing, np.abs(slope), np.inf), axis=1, keepdims=True, initial=0.0, where=missing)
        sign[todo] = np.where(missing & (np.abs(slope) >= most), np.sign(slope), np.where(wrong, 0.0, signs))
        todo = np.flatnonzero(~good)
        if not len(todo):
            break
    return theta, s2, good


def _on_support(matrix: Array, right: Array, there: npt.NDArray[np.bool_]) -> Array:
    """Solve matrix (N, K, K) delta = right (N, K) on each series' own support; 0 elsewhere."""
    series, width = there.shape
    if width == 0:
        return np.zeros((series, 0))
    most = max(int(there.sum(axis=1).max(initial=0)), 1)
    # The columns of each support first, in order; what fills the rest up is an identity.
    order = np.argsort(~there, axis=1, kind="stable")[:, :most]
    used = np.take_along_axis(there, order, axis=1)
    rows = np.arange(series)[:, None]
    small = matrix[rows[:, :, None], order[:, :, None], order[:, None, :]]
    small *= used[:, :, None] & used[:, None, :]
    diagonal = np.arange(most)
    small[:, diagonal, diagonal] += ~used
    answer = np.linalg.solve(small, (right[rows, order] * used)[:, :, None])[:, :, 0]
    delta = np.zeros((series, width))
    delta[rows, order] = answer
    return delta


def _times(rows: Array, matrix: Array) -> Array:
    """Rows (N, A) times a shared matrix (A, B) or each row times its own (N, A, B)."""
    if matrix.ndim == 2:
        return rows @ matrix
    return np.asarray((rows[:, None, :] @ matrix)[:, 0, :])
