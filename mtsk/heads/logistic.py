"""JointLogistic: all tasks' generalised linear models, fitted in shared passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from tqdm.auto import tqdm

from mtsk._resources import keep_freed_memory, one_blas_thread
from mtsk._validation import Interval, check_parameters
from mtsk.heads.base import (
    CLASS_WEIGHT,
    COLUMNS,
    ClassWeight,
    JointLinear,
    Memo,
    class_weights,
    labelled_columns,
    recall,
)
from mtsk.heads.lbfgs import InverseHessian, distance_along
from mtsk.heads.statistics import Moments, inverse_std
from mtsk.tasks.columns import ColumnGroup, score_slices

__all__ = ["JointLogistic"]


class JointLogistic(JointLinear):
    """Linear models of nominal, binary and real columns, missing entries allowed.

    For each column group, over its labelled rows with weights w of mean 1::

        minimise  mean(w · loss(y, x̃ᵀV + b)) + alpha / 2 · ‖V‖²

    where x̃ is x standardised over the group's rows and loss is the multinomial
    (nominal), Bernoulli (binary) or, for real columns, half the squared one of the
    standardised numbers, with ``alpha_real`` for alpha. Nothing is shared between
    groups, so the joint fit equals separate fits; what they share is work: one pass
    over the table serves all of them. The search runs in coordinates in which the
    null model's Hessian is the identity (one eigendecomposition for each set of
    rows), which takes some 15 passes instead of hundreds.

    Parameters
    ----------
    alpha : float, default=0.01
        Strength of the penalty on classes and labels, relative to standardised
        features.
    alpha_real : float, default=0.3
        The same for numbers. The squared loss bends everywhere alike, the others
        hardly at all where they are sure, so it takes more to hold it.
    class_weight : {"sqrt", "balanced"}, float in [0, 1] or None, default="sqrt"
        Classes and labels of frequency f weigh ∝ 1/√f, 1/f, f to the power of minus
        this number, or 1. Probabilities are
        those of the weighted frequencies, as everywhere in scikit-learn.
    columns : list of ColumnGroup, default=None
        What the columns of ``y`` are (then coded, NaN missing). None reads integer,
        bool and str columns as classes, float ones as numbers.
    max_iter : int, default=30
        Most steps a group takes.
    tol : float, default=2e-3
        A group stops when a step lowers its objective by less than this fraction.
    verbose : int, default=0
        Above 0 shows a progress bar.

    Attributes
    ----------
    coef_ : ndarray of float32, shape (n_features, n_scores)
    intercept_ : ndarray of float32, shape (n_scores,)
    groups_ : list of ColumnGroup
    n_iter_ : list of int
        Steps taken, by group.

    See Also
    --------
    JointRidge : Closed form, mergeable, chooses ``alpha`` itself.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import JointLogistic
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> JointLogistic().fit(X, ["low", "low", "high", "high"]).predict([[0.2], [2.9]])
    array(['low', 'high'], dtype='<U4')
    """

    def __init__(
        self,
        alpha: float = 0.01,
        *,
        alpha_real: float = 0.3,
        class_weight: ClassWeight = "sqrt",
        columns: Sequence[ColumnGroup] | None = None,
        max_iter: int = 30,
        tol: float = 2e-3,
        verbose: int = 0,
    ) -> None:
        self.alpha = alpha
        self.alpha_real = alpha_real
        self.class_weight = class_weight
        self.columns = columns
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, memo: Memo | None = None
    ) -> Self:
        """Fit all groups.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
        sample_weight : array-like of shape (n_samples,), default=None
        memo : object with ``get`` and ``put``, default=None
            Keeps the eigendecomposition between fits. One memo for each ``X``.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, ValueError
        """
        check_parameters(self, _CONSTRAINTS)
        X, Y, weight = self._check_table(X, y, sample_weight)
        table = torch.from_numpy(np.ascontiguousarray(X))
        bases: dict[bytes, _Basis] = {}
        problems = [
            _Problem(group, Y[:, part], weight, self, X, bases, memo)
            for group, part, _ in labelled_columns(self.groups_)
        ]
        with (
            tqdm(
                total=self.max_iter, desc="head", disable=not self.verbose, unit="pass"
            ) as bar,
            one_blas_thread(),
            keep_freed_memory(),
        ):
            _descend(table, problems, self.max_iter, self.tol, bar.update)
        self.n_iter_ = [problem.n_iter for problem in problems]
        parts = [problem.linear() for problem in problems]
        self.coef_ = np.concatenate([w for w, _ in parts], axis=1).astype(np.float32)
        self.intercept_ = np.concatenate([b for _, b in parts]).astype(np.float32)
        return self


_CONSTRAINTS: dict[str, list] = {
    "alpha": [Interval(Real, 0, None, closed="neither")],
    "alpha_real": [Interval(Real, 0, None, closed="neither")],
    "columns": COLUMNS,
    "class_weight": CLASS_WEIGHT,
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
}


@dataclass
class _Basis:
    """Standardisation and principal axes of a set of rows."""

    mean: np.ndarray  # (d,)
    axes: np.ndarray  # (d, r): standardise, then rotate
    values: np.ndarray  # (r,) variances along the axes

    @property
    def nbytes(self) -> int:
        return self.mean.nbytes + self.axes.nbytes + self.values.nbytes

    @classmethod
    def of(cls, X: np.ndarray, weight: np.ndarray) -> _Basis:
        rows = np.flatnonzero(weight > 0)
        if len(rows) < X.shape[1]:
            return cls._of_few(X[rows].astype(np.float64), weight[rows])
        moments = Moments.of(X, np.zeros((len(X), 1)), weight)
        covariance = moments.covariance()
        scale = inverse_std(np.diag(covariance), moments.x_mean)
        values, axes = np.linalg.eigh(covariance * scale[:, None] * scale[None, :])
        return cls(moments.x_mean, scale[:, None] * axes, values.clip(min=0))

    @classmethod
    def _of_few(cls, X: np.ndarray, weight: np.ndarray) -> _Basis:
        """Fewer rows than features: the rows' own span holds every solution."""
        mean = np.average(X, axis=0, weights=weight)
        X = X - mean
        scale = inverse_std(np.average(X**2, axis=0, weights=weight), mean)
        X *= scale * np.sqrt(weight / weight.sum())[:, None]
        values, left = np.linalg.eigh(X @ X.T)
        keep = values > values.max(initial=0) * 1e-10
        values = values[keep]
        axes = X.T @ (left[:, keep] / np.sqrt(values))
        return cls(mean, scale[:, None] * axes, values)


class _Problem:
    """One group's objective, in coordinates where it is well conditioned."""

    def __init__(
        self,
        group: ColumnGroup,
        Y: np.ndarray,
        weight: np.ndarray,
        head: JointLogistic,
        X: np.ndarray,
        bases: dict[bytes, _Basis],
        memo: Memo | None = None,
    ) -> None:
        self.group = group
        self.alpha = head.alpha_real if group.kind == "real" else head.alpha
        rows = np.where(np.isnan(Y).all(axis=1), 0.0, weight)
        if not rows.any():
            raise ValueError("a column group has no labelled row of positive weight")
        key = rows.tobytes()
        if key not in bases:
            bases[key] = recall(memo, [rows], lambda: _Basis.of(X, rows))
        self.basis = bases[key]
        entries = class_weights(group, Y, weight, head.class_weight)
        total = entries.sum(axis=0)
        self._mass = entries / np.where(total > 0, total, 1)
        self._prepare_targets(Y)
        spread = np.outer(self.basis.values, self._curvature) + self.alpha
        self.scale = 1 / np.sqrt(spread)
        self.mass = torch.from_numpy(self._mass.astype(np.float32))
        self.point = np.concatenate([np.zeros(spread.size), self._start_intercept])
        self.scores = torch.from_numpy(self._start_intercept.astype(np.float32))
        self.scores = self.scores.repeat(len(Y), 1)
        self._spare = torch.empty_like(self.scores), torch.empty_like(self.scores)
        self.loss, self.n_iter, self.done = np.inf, 0, False
        self._gradient = self._moved = self.direction = np.zeros_like(self.point)
        self.inverse_hessian = InverseHessian()

    def _prepare_targets(self, Y: np.ndarray) -> None:
        Y = np.nan_to_num(Y)
        total = self._mass.sum(axis=0)
        if self.group.kind == "nominal":
            codes = Y[:, 0].astype(np.int64)
            share = np.bincount(codes, self._mass[:, 0], minlength=self.group.size)
            share = (share / share.sum()).clip(1e-6, 1)
            self._curvature = share * (1 - share).clip(min=1e-6)
            self._start_intercept = np.log(share)
            self.target = torch.from_numpy(codes)
            return
        mean = (self._mass * Y).sum(axis=0) / np.where(total > 0, total, 1)
        if self.group.kind == "binary":
            share = mean.clip(1e-6, 1 - 1e-6)
            self._curvature = share * (1 - share)
            self._start_intercept = np.log(share / (1 - share))
            self.target = torch.from_numpy(Y.astype(np.float32))
            return
        variance = (self._mass * (Y - mean) ** 2).sum(axis=0)
        self._t_mean, self._t_std = mean, np.sqrt(np.where(variance > 0, variance, 1.0))
        self._curvature = np.ones(self.group.size)
        self._start_intercept = np.zeros(self.group.size)
        scaled = (Y - self._t_mean) / self._t_std
        self.target = torch.from_numpy(scaled.astype(np.float32))

    def weights(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights on x and the intercepts that a point stands for."""
        return self.with_intercept(self.basis.axes @ self.inner(point), point)

    def with_intercept(
        self, coef: np.ndarray, point: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return weights on x with the intercepts that go with them."""
        return coef, point[self.scale.size :] - self.basis.mean @ coef

    def linear(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the same for the best point, in the units of the targets."""
        coef, intercept = self.weights(self.point)
        if self.group.kind == "real":
            return coef * self._t_std, intercept * self._t_std + self._t_mean
        return coef, intercept

    def inner(self, point: np.ndarray) -> np.ndarray:
        """Return the penalised weights, on standardised and rotated features."""
        return point[: self.scale.size].reshape(self.scale.shape) * self.scale

    def residual(self, tol: float) -> torch.Tensor:
        """Return the loss's gradient by the scores, and see whether to go on."""
        value, residual = self.loss_and_residual(self.scores)
        value += self.alpha / 2 * float((self.inner(self.point) ** 2).sum())
        self.done = self.loss - value <= tol * max(abs(value), 1e-6)
        self.loss = value
        return residual

    def centred(self, by_coef: np.ndarray, by_intercept: np.ndarray) -> np.ndarray:
        """Return the gradient by weights on centred features."""
        return by_coef - np.outer(self.basis.mean, by_intercept)

    def choose_direction(self, by_inner: np.ndarray, by_intercept: np.ndarray) -> None:
        """Set the direction of the next step, given the loss's gradient."""
        inner = by_inner + self.alpha * self.inner(self.point)
        gradient = np.concatenate([(inner * self.scale).ravel(), by_intercept])
        if self.n_iter:
            self.inverse_hessian.learn(self._moved, gradient - self._gradient)
        self._gradient = gradient
        self.direction = -self.inverse_hessian.times(gradient)
        self.done |= self.direction @ gradient > -1e-12

    def step(self, along: torch.Tensor) -> None:
        """Go along the direction, whose scores are given, as far as it leads down."""
        at, toward = self.inner(self.point), self.inner(self.direction)
        tilt, bend = float((at * toward).sum()), float((toward**2).sum())

        known = self._slope_of_targets(along)

        def slope_at(distance: float) -> float:
            data = self._slope_of_means(along, distance) - known
            return data + self.alpha * (tilt + distance * bend)

        slope = float(self.direction @ self._gradient)
        distance = distance_along(slope_at, slope)
        self._moved = distance * self.direction
        self.scores.add_(along, alpha=distance)
        self.point = self.point + self._moved
        self.n_iter += 1

    def _slope_of_targets(self, along: torch.Tensor) -> float:
        """Return Σ mass · target · along, the part of a slope that stays."""
        if self.group.kind == "nominal":
            return _dot(along.gather(1, self.target[:, None]), self.mass)
        return _dot(along * self.target, self.mass)

    def _slope_of_means(self, along: torch.Tensor, distance: float) -> float:
        """Return Σ mass · E[target] · along at a distance."""
        scores, means = self._spare
        torch.add(self.scores, along, alpha=distance, out=scores)
        if self.group.kind == "nominal":
            torch.softmax(scores, 1, out=means)
            return _dot(means.mul_(along).sum(dim=1, keepdim=True), self.mass)
        if self.group.kind == "binary":
            scores.sigmoid_()
        return _dot(torch.mul(scores, along, out=means), self.mass)

    def loss_and_residual(self, scores: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Return the weighted mean loss and its gradient by the scores."""
        if self.group.kind == "nominal":
            logs = torch.log_softmax(scores, dim=1)
            hit = self.target[:, None]
            loss = -(logs.gather(1, hit) * self.mass).sum(dtype=torch.float64)
            residual = logs.exp_()
            residual.scatter_add_(1, hit, torch.full_like(self.mass, -1.0))
        elif self.group.kind == "binary":
            each = torch.nn.functional.binary_cross_entropy_with_logits(
                scores, self.target, reduction="none"
            )
            loss = (each * self.mass).sum(dtype=torch.float64)
            residual = torch.sigmoid(scores) - self.target
        else:
            residual = scores - self.target
            loss = (residual**2 * self.mass).sum(dtype=torch.float64) / 2
        return float(loss), residual.mul_(self.mass)


@torch.inference_mode()
def _descend(
    X: torch.Tensor,
    problems: list[_Problem],
    max_iter: int,
    tol: float,
    after_pass: Callable[[], object],
) -> None:
    """Minimise all problems, each on its own path, in shared passes over the table.

    One product with the table gives the scores of all directions; how far to go is
    then found from scores alone; a second product gives all gradients.
    """
    active = list(problems)
    ones, along = torch.ones(len(X)), torch.empty(0)
    for iteration in range(max_iter + 1):
        residuals = [problem.residual(tol) for problem in active]
        going = [not p.done and iteration < max_iter for p in active]
        active = [p for p, on in zip(active, going, strict=True) if on]
        if not active:
            break
        joined = torch.cat([r for r, on in zip(residuals, going, strict=True) if on], 1)
        by_coef = (joined.T @ X).T.double().numpy()
        by_intercept = (ones @ joined).double().numpy()
        parts = _parts(active)
        centred = [
            p.centred(by_coef[:, part], by_intercept[part])
            for p, part in zip(active, parts, strict=True)
        ]
        turned = _times_axes(active, centred, transpose=True)
        for problem, part, inner in zip(active, parts, turned, strict=True):
            problem.choose_direction(inner, by_intercept[part])
        turned = _times_axes(active, [p.inner(p.direction) for p in active])
        lines = [
            p.with_intercept(coef, p.direction)
            for p, coef in zip(active, turned, strict=True)
        ]
        coef = np.concatenate([c for c, _ in lines], axis=1).astype(np.float32, "C")
        torch.mm(X, torch.from_numpy(coef), out=along.resize_(len(X), coef.shape[1]))
        for problem, part, (_, intercept) in zip(active, parts, lines, strict=True):
            shift = torch.from_numpy(intercept.astype(np.float32))
            problem.step(along[:, part].add_(shift))
        after_pass()


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the sum of a product, added up in float64 over blocks of float32."""
    return float((a * b).sum(dtype=torch.float64))


def _times_axes(
    problems: list[_Problem], blocks: list[np.ndarray], *, transpose: bool = False
) -> list[np.ndarray]:
    """Multiply each problem's block by its axes; those that share axes at once."""
    out: list[np.ndarray] = [np.empty(0)] * len(problems)
    sharing: dict[int, list[int]] = {}
    for i, problem in enumerate(problems):
        sharing.setdefault(id(problem.basis), []).append(i)
    for members in sharing.values():
        # By torch: numpy's BLAS has threads of its own, which get in torch's way.
        axes = torch.from_numpy(problems[members[0]].basis.axes)
        joined = torch.from_numpy(np.concatenate([blocks[i] for i in members], axis=1))
        product = ((axes.T if transpose else axes) @ joined).numpy()
        ends = np.cumsum([blocks[i].shape[1] for i in members])[:-1]
        for i, part in zip(members, np.split(product, ends, axis=1), strict=True):
            out[i] = part
    return out


def _parts(problems: list[_Problem]) -> list[slice]:
    return score_slices([problem.group for problem in problems])
