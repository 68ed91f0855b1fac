"""What JointLogistic's search is made of: products, samples, second derivatives."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from mtsk.heads.lbfgs import InverseHessian
from mtsk.heads.products import TallTable
from mtsk.heads.sampled_hessian import SampledHessian, stratified_rows
from mtsk.heads.statistics import mean_and_variance

EPS = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("k", [1, 3, 16, 21])
@pytest.mark.parametrize("n", [1, 70, 66_000])  # the last in two blocks
def test_products_of_a_tall_table(n, k):
    random = np.random.default_rng(0)
    X = random.normal(size=(n, 9)).astype(np.float32)
    coef, narrow = random.normal(size=(9, k)), random.normal(size=(n, k))
    table = TallTable(X)
    # Sums of d or n products in float32: off by so many roundings at most.
    np.testing.assert_allclose(
        table.times(coef).numpy(), X @ coef, rtol=0, atol=30 * 9 * EPS
    )
    found = table.transposed_times(torch.from_numpy(narrow.astype(np.float32)))
    assert found.dtype == np.float64
    bound = (np.abs(X).T @ np.abs(narrow)) * min(n, 3000) * EPS
    assert (np.abs(found - X.T.astype(float) @ narrow) <= bound + 1e-6).all()


def test_mean_and_variance_of_weighted_rows():
    random = np.random.default_rng(0)
    X = (random.normal(size=(20_000, 3)) * [1, 1e-2, 50] + [0, 1e3, -5]).astype("f4")
    w = random.integers(0, 3, len(X)).astype(float)
    mean, variance = mean_and_variance(X, w)
    exact = np.repeat(X.astype(float), w.astype(int), axis=0)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, exact.var(axis=0), rtol=1e-4)


def test_stratified_rows_have_every_class_and_its_weight():
    codes = np.repeat([4, 0, 2], [10_000, 50, 3])
    mass = np.random.default_rng(0).uniform(1, 2, len(codes))
    mass[:5] = 0
    mass /= mass.sum()
    rows, weights = stratified_rows(codes, mass, 300)
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 5
    assert 150 < len(rows) <= 600
    for code, least in [(4, 100), (0, 50), (2, 3)]:
        here = codes[rows] == code
        assert here.sum() >= least
        assert weights[here].sum() == pytest.approx(mass[codes == code].sum())


def hessian_of(n=80, r=4, k=3, alpha=0.05):
    random = np.random.default_rng(0)
    Z = random.normal(size=(n, r)).astype(np.float32)
    mass = random.uniform(0.5, 1, n)
    mass /= mass.sum()
    point = random.normal(size=r * k + k)
    found = SampledHessian(TallTable(Z), mass, alpha, k)
    found.move_to(point)

    def gradient(at):
        scores = Z @ at[:-k].reshape(r, k) + at[-k:]
        residual = (
            softmax(scores, axis=1) * mass[:, None]
        )  # targets change no second derivative
        by_weights = Z.T @ residual + alpha * at[:-k].reshape(r, k)
        return np.concatenate([by_weights.ravel(), residual.sum(axis=0)])

    steps = np.eye(len(point)) * 1e-5
    exact = [(gradient(point + s) - gradient(point - s)) / 2e-5 for s in steps]
    return found, np.array(exact)


def test_a_sampled_hessian_is_the_derivative_of_the_gradient():
    found, exact = hessian_of()
    for row, unit in zip(exact, np.eye(len(exact)), strict=True):
        np.testing.assert_allclose(found.times(unit), row, atol=1e-5)


def test_a_sampled_hessian_is_solved_until_a_tenth_is_left():
    found, exact = hessian_of()
    k = 3

    def project(vector):  # a number added to all classes' scores changes nothing
        table = vector.reshape(-1, k)
        return (table - table.mean(axis=1, keepdims=True)).ravel()

    right = project(np.random.default_rng(1).normal(size=len(exact)))
    diagonal = 1 / np.diag(exact)
    left = right - exact @ found.solve(right, diagonal, project)
    assert left @ (diagonal * left) <= 0.011 * right @ (diagonal * right)


def test_the_inverse_hessian_learns_a_quadratic():
    random = np.random.default_rng(0)
    A = random.normal(size=(6, 6))
    A = A @ A.T + np.eye(6)
    memory = InverseHessian()
    assert memory.scale_of(np.ones(6)) == 1
    basis = []
    for step in random.normal(size=(6, 6)):  # conjugate steps: six tell everything
        for other in basis:
            step = step - (step @ A @ other) / (other @ A @ other) * other
        basis.append(step)
        memory.update(step, A @ step)
    vector = random.normal(size=6)
    found = memory.times(vector, lambda v: v)
    np.testing.assert_allclose(found, np.linalg.solve(A, vector), rtol=1e-6)
