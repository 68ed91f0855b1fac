"""Generalised linear models of many columns, fitted in shared passes over a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import torch

from mtsk.heads.lbfgs import InverseHessian, distance_along
from mtsk.heads.products import TallTable
from mtsk.heads.sampled_hessian import SampledHessian, stratified_rows
from mtsk.heads.statistics import Moments, inverse_std, mean_and_variance

__all__ = ["Basis", "Objective", "minimise", "warm_start"]

_ROWS_PER_FEATURE = 4  # rows of the sample that covariances are taken of
_ABSENT = 1e-6  # share given to a class or label that does not occur
_SMALL_STEPS = 2  # consecutive, that end a search
_MANY = 6  # times the rows of a sample, above which one is used
_ROUGH = 0.03  # step size that ends the warm start, in logits


@dataclass
class Basis:
    """Standardisation of a set of rows, and approximate principal axes.

    The penalty is on weights of standardised features, whose means and standard
    deviations are those of all rows. The axes only speed up the search: where there are
    many rows, they come from an evenly spaced subset.

    Attributes
    ----------
    mean : ndarray of shape (d,)
    axes : ndarray of shape (d, r), or None
        Standardise, then rotate: weights on x are ``axes`` times those of the search.
        None: x is already expressed along the axes.
    values : ndarray of shape (r,)
        Variances along the axes.
    """

    mean: np.ndarray
    axes: np.ndarray | None
    values: np.ndarray

    @property
    def nbytes(self) -> int:
        axes = 0 if self.axes is None else self.axes.nbytes
        return self.mean.nbytes + self.values.nbytes + axes + axes // 2  # and _table

    @cached_property
    def _table(self) -> TallTable:
        """The axes in float32: sufficient for the search, in a tenth of the time."""
        return TallTable(np.asarray(self.axes, np.float32))

    def on_x(self, weights: np.ndarray) -> np.ndarray:
        """Return weights on x, (d, k), of weights of the search, (r, k)."""
        if self.axes is None:
            return weights
        return self._table.times(weights).double().numpy()

    def from_x(self, gradient: np.ndarray) -> np.ndarray:
        """Convert a gradient w.r.t. weights on x to one w.r.t. search weights."""
        if self.axes is None:
            return gradient
        narrow = torch.from_numpy(gradient.astype(np.float32))
        return self._table.transposed_times(narrow)

    def along_axes(self, rows: np.ndarray) -> TallTable:
        """Return rows standardised and along the axes; the input is overwritten."""
        rows -= self.mean.astype(np.float32)
        return TallTable((torch.from_numpy(rows) @ self._table.X).numpy())

    @classmethod
    def of(cls, X: np.ndarray, weight: np.ndarray) -> Basis:
        """Return the basis of the rows of positive weight.

        Parameters
        ----------
        X : ndarray of float32, shape (n, d)
        weight : ndarray of shape (n,)

        Returns
        -------
        Basis
        """
        rows = np.flatnonzero(weight > 0)
        d = X.shape[1]
        if len(rows) < d:
            return cls._of_few(X[rows].astype(np.float64), weight[rows])
        mean, variance = mean_and_variance(X, weight)
        scale = inverse_std(variance, mean)
        some = rows[:: max(1, len(rows) // (_ROWS_PER_FEATURE * d))]
        moments = Moments.of(X[some], np.zeros((len(some), 1)), weight[some])
        covariance = moments.covariance()
        values, axes = np.linalg.eigh(covariance * scale[:, None] * scale[None, :])
        return cls(mean, scale[:, None] * axes, values.clip(min=0))

    @classmethod
    def _of_few(cls, X: np.ndarray, weight: np.ndarray) -> Basis:
        """Return the basis where rows are fewer than features: the rows' span."""
        mean = np.average(X, axis=0, weights=weight)
        X = X - mean
        scale = inverse_std(np.average(X**2, axis=0, weights=weight), mean)
        X *= scale * np.sqrt(weight / weight.sum())[:, None]
        values, left = np.linalg.eigh(X @ X.T)
        keep = values > values.max(initial=0) * 1e-10
        values = values[keep]
        axes = X.T @ (left[:, keep] / np.sqrt(values))
        return cls(mean, scale[:, None] * axes, values)


class Objective:
    """The objective of one label, number, or set of exclusive classes.

    With standardised x̃, weights V on it along the axes of a basis, and intercepts b::

        f(V, b) = Σ mass · loss(y, x̃ᵀV + b) + alpha / 2 · ‖V‖²

    The loss is the multinomial one (nominal), Bernoulli (binary) or half the squared
    one of standardised numbers (real). The search keeps V and b in one vector, the
    *point*, and the scores of all rows separately.

    Parameters
    ----------
    kind : {"nominal", "binary", "real"}
    size : int
        Classes; 1 for a label or a number.
    target : ndarray of shape (n,)
        Coded; arbitrary where ``mass`` is 0.
    mass : ndarray of shape (n,)
        Weights of rows, of sum 1; 0 where unlabelled.
    alpha : float
    basis : Basis

    Attributes
    ----------
    n_iter : int
        Steps taken.
    done : bool
    """

    def __init__(
        self,
        kind: Literal["nominal", "binary", "real"],
        size: int,
        target: np.ndarray,
        mass: np.ndarray,
        alpha: float,
        basis: Basis,
    ) -> None:
        self.kind, self.size, self.alpha, self.basis = kind, size, alpha, basis
        self._mean, self._std = 0.0, 1.0
        start = self._set_target(target, mass)
        self.mass = torch.from_numpy(mass.astype(np.float32))[:, None]
        self._labelled = (self.mass > 0).float()
        self.scores = torch.from_numpy(start.astype(np.float32)).repeat(len(mass), 1)
        self.hessian: SampledHessian | None = None
        self._spare = torch.empty_like(self.scores), torch.empty_like(self.scores)
        self.point = np.concatenate([np.zeros(len(basis.values) * size), start])
        self.n_iter, self._n_small = 0, 0
        self._gradient = self._moved = self.direction = np.zeros_like(self.point)
        self._inverse_hessian = InverseHessian()
        # A constant target has no finite optimum: only its intercept is used.
        self.done = kind != "real" and int(self._occurs.sum()) + (kind == "binary") < 2

    def _set_target(self, target: np.ndarray, mass: np.ndarray) -> np.ndarray:
        """Set the target; return the optimal intercepts without features."""
        if self.kind == "real":
            target = np.where(mass > 0, target, 0.0)
            self._mean = float(mass @ target)
            variance = float(mass @ (target - self._mean) ** 2)
            self._std = np.sqrt(variance) if variance > 0 else 1.0
            scaled = (target - self._mean) / self._std
            self.target = torch.from_numpy(scaled.astype(np.float32))[:, None]
            self._occurs = np.ones(1, bool)
            return np.zeros(1)
        codes = np.where(mass > 0, target, 0).astype(np.int64)
        n_codes = self.size if self.kind == "nominal" else 2
        share = np.bincount(codes, mass, minlength=n_codes).astype(float)
        share /= share.sum() or 1.0
        if self.kind == "nominal":
            self.target = torch.from_numpy(codes)[:, None]
            self._occurs = share > 0
            return np.log(share.clip(_ABSENT, 1))
        self.target = torch.from_numpy(codes.astype(np.float32))[:, None]
        self._occurs = np.array([0 < share[1] < 1])
        likely = share[1:].clip(_ABSENT, 1 - _ABSENT)
        return np.log(likely / (1 - likely))

    # -- points ---------------------------------------------------------------

    def weights(self, point: np.ndarray) -> np.ndarray:
        """Return V, of shape (r, size), of a point."""
        return point[: -self.size].reshape(-1, self.size)

    def start_at(self, point: np.ndarray, table: TallTable) -> None:
        """Set the starting point."""
        self.point = point
        coef = self.basis.on_x(self.weights(point))
        intercept = self.intercept_on_x(coef, point).astype(np.float32)
        self.scores = table.times(coef).add_(torch.from_numpy(intercept))

    def sample(self, X: np.ndarray, most: int) -> tuple[Objective, TallTable]:
        """Return the objective of a stratified sample, and its rows along the axes.

        Parameters
        ----------
        X : ndarray of float32, shape (n, d)
            All rows.
        most : int
            Rows of the sample, up to twice this.
        """
        codes = self.target[:, 0].numpy()
        rows, mass = stratified_rows(codes, self.mass[:, 0].double().numpy(), most)
        values = self.basis.values
        basis = Basis(np.zeros(len(values)), None, values)
        small = Objective(self.kind, self.size, codes[rows], mass, self.alpha, basis)
        return small, self.basis.along_axes(X[rows])

    def intercept_on_x(self, coef: np.ndarray, point: np.ndarray) -> np.ndarray:
        """Return the intercepts for weights on x, which is not centred."""
        return point[-self.size :] - self.basis.mean @ coef

    def linear(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weights on x and intercepts, in the units of the target."""
        assert self.basis.axes is not None
        coef = self.basis.axes @ self.weights(self.point)
        intercept = self.intercept_on_x(coef, self.point)
        return coef * self._std, intercept * self._std + self._mean

    # -- one step -------------------------------------------------------------

    def residual(self) -> torch.Tensor:
        """Return the gradient of the loss w.r.t. the scores, mass · (E[y] − y).

        Also stores the mean second derivative of the loss w.r.t. each score.
        """
        expected = self._expected(self.scores, torch.empty_like(self.scores))
        if self.kind == "real":
            self._curvature = np.ones(1)
            return expected.sub_(self.target).mul_(self.mass)
        variance = torch.addcmul(expected, expected, expected, value=-1)
        variance.mul_(self.mass)
        self._curvature = variance.sum(dim=0, dtype=torch.float64).numpy().clip(_ABSENT)
        if self.kind == "nominal":
            ones = torch.full_like(self.mass, -1.0)
            return expected.scatter_add_(1, self.target, ones).mul_(self.mass)
        return expected.sub_(self.target).mul_(self.mass)

    def choose_direction(self, by_weights: np.ndarray, by_score: np.ndarray) -> None:
        """Set the direction of the next step.

        Parameters
        ----------
        by_weights : ndarray of shape (r, size)
            Gradient of the loss w.r.t. V.
        by_score : ndarray of shape (size,)
            Gradient w.r.t. b.
        """
        by_weights = by_weights + self.alpha * self.weights(self.point)
        gradient = np.concatenate([by_weights.ravel(), by_score])
        if self.n_iter:
            self._inverse_hessian.update(self._moved, gradient - self._gradient)
        self._gradient = gradient
        by_axis = np.outer(self.basis.values, self._curvature) + self.alpha
        diagonal = 1 / np.concatenate([by_axis.ravel(), self._curvature])
        if self.hessian is None:
            diagonal *= self._inverse_hessian.scale_of(diagonal)
        else:
            self.hessian.move_to(self.point)

        def start(vector: np.ndarray) -> np.ndarray:
            if self.hessian is None:
                return diagonal * vector
            return self.hessian.solve(vector, diagonal, self._project)

        downhill = self._project(gradient)
        self.direction = -self._project(self._inverse_hessian.times(downhill, start))
        if not self.direction @ gradient < 0:  # not a descent direction, by rounding
            self._inverse_hessian, self.hessian = InverseHessian(), None
            self.direction = -self._project(diagonal * downhill)
        self.done = bool(self.direction @ gradient > -_NEGLIGIBLE)

    def _project(self, vector: np.ndarray) -> np.ndarray:
        """Project a vector on directions that change probabilities of present classes.

        Scores of classes are defined up to a constant, and that of an absent class
        would go to −∞: the sum of weights and intercepts is kept.
        """
        if self.kind != "nominal":
            return vector
        table = vector.reshape(-1, self.size) * self._occurs
        table -= table.sum(axis=1, keepdims=True) / self._occurs.sum() * self._occurs
        return table.ravel()

    def step(self, along: torch.Tensor, tol: float) -> None:
        """Step along the direction, by line search.

        Parameters
        ----------
        along : Tensor of shape (n, size)
            Change of the scores along the direction.
        tol : float
            The search ends after two consecutive steps that change no labelled row's
            score by more than this.
        """
        at, toward = self.weights(self.point), self.weights(self.direction)
        penalty_slope = self.alpha * float((at * toward).sum())
        penalty_curvature = self.alpha * float((toward**2).sum())
        target_slope = self._slope_of_targets(along)

        def slope_at(distance: float) -> float:
            loss_slope = self._slope_of_means(along, distance) - target_slope
            return loss_slope + penalty_slope + distance * penalty_curvature

        slope = float(self.direction @ self._gradient)
        distance = distance_along(slope_at, slope)
        self._moved = distance * self.direction
        self.scores.add_(along, alpha=distance)
        self.point = self.point + self._moved
        self.n_iter += 1
        change = distance * float((along * self._labelled).abs_().max())
        self._n_small = self._n_small + 1 if change <= tol else 0
        self.done = self._n_small >= _SMALL_STEPS

    def _slope_of_targets(self, along: torch.Tensor) -> float:
        """Return Σ mass · y · along, the constant part of a slope."""
        if self.kind == "nominal":
            return _dot(along.gather(1, self.target), self.mass)
        return _dot(along * self.target, self.mass)

    def _slope_of_means(self, along: torch.Tensor, distance: float) -> float:
        """Return Σ mass · E[y] · along at a distance."""
        scores, expected = self._spare
        torch.add(self.scores, along, alpha=distance, out=scores)
        self._expected(scores, expected)
        return _dot(expected.mul_(along).sum(dim=1, keepdim=True), self.mass)

    def _expected(self, scores: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Return E[y] of the model, given scores."""
        if self.kind == "nominal":
            return torch.softmax(scores, 1, out=out)
        if self.kind == "binary":
            return torch.sigmoid(scores, out=out)
        return out.copy_(scores)


_NEGLIGIBLE = 1e-14  # decrease of an objective, whose loss is about 1


@torch.inference_mode()
def warm_start(
    X: np.ndarray, table: TallTable, objectives: Sequence[Objective], max_iter: int
) -> None:
    """Start multinomial objectives over many rows at the optimum of a sample.

    They also get the sample's Hessian, which needs a third of the steps of a diagonal
    one (CamVid: 40 instead of 150).

    Parameters
    ----------
    X : ndarray of float32, shape (n, d)
    table : TallTable
        Table of X.
    objectives : sequence of Objective
        Before their first step.
    max_iter : int
        Maximum number of steps on the sample.
    """
    most = _ROWS_PER_FEATURE * X.shape[1]
    for objective in objectives:
        if objective.done or objective.kind != "nominal" or len(X) <= _MANY * most:
            continue
        small, rows = objective.sample(X, most)
        minimise(rows, [small], max_iter, _ROUGH, lambda: None)
        objective.start_at(small.point, table)
        objective.hessian = SampledHessian(
            rows, small.mass[:, 0].numpy(), objective.alpha, objective.size
        )


@torch.inference_mode()
def minimise(
    table: TallTable,
    objectives: Sequence[Objective],
    max_iter: int,
    tol: float,
    after_pass: Callable[[], object],
) -> None:
    """Minimise all objectives independently, in shared passes over the table.

    One product with the table gives the scores of all directions; the step length is
    then found from scores alone; a second product gives all gradients.

    Parameters
    ----------
    table : TallTable
    objectives : sequence of Objective
    max_iter : int
        Maximum number of steps of each.
    tol : float
        See `Objective.step`.
    after_pass : callable
        Called after each pass.
    """
    for _ in range(max_iter):
        active = [o for o in objectives if not o.done]
        if not active:
            break
        residual = torch.cat([o.residual() for o in active], dim=1)
        by_score = residual.sum(dim=0, dtype=torch.float64).numpy()
        by_x = table.transposed_times(residual)
        parts = _slices(active)
        means = np.stack([o.basis.mean for o in active for _ in range(o.size)], axis=1)
        centred = by_x - means * by_score
        by_axes = _by_basis(Basis.from_x, active, [centred[:, part] for part in parts])
        for o, part, by_weights in zip(active, parts, by_axes, strict=True):
            o.choose_direction(by_weights, by_score[part])
        going = [o for o in active if not o.done]
        if not going:
            continue
        coefs = _by_basis(Basis.on_x, going, [o.weights(o.direction) for o in going])
        along = table.times(np.concatenate(coefs, axis=1))
        for o, part, coef in zip(going, _slices(going), coefs, strict=True):
            intercept = o.intercept_on_x(coef, o.direction).astype(np.float32)
            o.step(along[:, part] + torch.from_numpy(intercept), tol)
        after_pass()


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the sum of a product, added up in float64."""
    return float((a * b).sum(dtype=torch.float64))


def _by_basis(
    change: Callable[[Basis, np.ndarray], np.ndarray],
    objectives: Sequence[Objective],
    columns: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """Transform each objective's columns by its basis, grouped by basis."""
    out: list[np.ndarray] = [np.empty(0)] * len(objectives)
    sharing: dict[int, list[int]] = {}
    for i, objective in enumerate(objectives):
        sharing.setdefault(id(objective.basis), []).append(i)
    for members in sharing.values():
        joined = np.concatenate([columns[i] for i in members], axis=1)
        changed = change(objectives[members[0]].basis, joined)
        ends = np.cumsum([objectives[i].size for i in members])[:-1]
        for i, own in zip(members, np.split(changed, ends, axis=1), strict=True):
            out[i] = own
    return out


def _slices(objectives: Sequence[Objective]) -> list[slice]:
    ends = np.cumsum([0, *(o.size for o in objectives)])
    return [slice(a, b) for a, b in pairwise(ends)]
