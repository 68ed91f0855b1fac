"""SharedLayerNetwork: what is shared, what is missing, what stays the same."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from mtsk import JointLogistic, MultiTaskSegmenter, SharedLayerNetwork, Targets
from mtsk.exceptions import UnknownTaskError
from mtsk.heads import network as module
from mtsk.heads.dropout import Dropout
from mtsk.heads.statistics import inverse_std, mean_and_variance
from mtsk.heads.weighting import FAMO, Equal
from mtsk.tasks.columns import ColumnGroup
from mtsk.testing import toy_images

GROUPS = [ColumnGroup("nominal", 3), ColumnGroup("binary", 2), ColumnGroup("real", 2)]


def table(n=300, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5)).astype(np.float32)
    hidden = np.tanh(X @ rng.normal(size=(5, 4)))
    nominal = (hidden @ rng.normal(size=(4, 3))).argmax(axis=1)
    binary = hidden[:, :2] > 0
    real = 30 + 7 * hidden[:, 2:]
    Y = np.column_stack([nominal, binary, real]).astype(np.float32)
    return X, Y


def fit(X, Y, columns=GROUPS, **parameters):
    parameters = {
        "hidden_layer_sizes": (16,),
        "random_state": 0,
        "device": "cpu",
        **parameters,
    }
    return SharedLayerNetwork(columns=columns, **parameters).fit(X, Y)


def test_learns_what_no_linear_head_can():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (2000, 2))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    network = SharedLayerNetwork((64,), dropout=0.1, n_epochs=40, random_state=0)
    linear = JointLogistic().fit(X, y)
    assert (linear.predict(X) == y).mean() < 0.65
    assert (network.fit(X, y).predict(X) == y).mean() > 0.95


def test_all_kinds_of_columns():
    X, Y = table(2000)
    model = fit(X, Y, n_epochs=60, dropout=0.1)
    new, truth = table(2000)
    guess = model.predict(new)
    assert (guess[:, 0] == truth[:, 0]).mean() > 0.85
    assert (guess[:, 1:3] == truth[:, 1:3]).mean() > 0.9
    assert np.corrcoef(guess[:, 3], truth[:, 3])[0, 1] > 0.9
    assert abs(guess[:, 3].mean() - 30) < 3
    proba = model.predict_proba(new)
    np.testing.assert_allclose(proba[:, :3].sum(axis=1), 1, atol=1e-5)


def test_the_same_seed_gives_the_same_bits():
    X, Y = table()
    first, second = fit(X, Y), fit(X, Y)
    np.testing.assert_array_equal(
        first.decision_function(X), second.decision_function(X)
    )
    other = fit(X, Y, random_state=1)
    assert np.abs(other.decision_function(X) - first.decision_function(X)).max() > 1e-3


def test_a_fit_leaves_the_global_generator_alone():
    X, Y = table(60)
    torch.manual_seed(3)
    before = torch.rand(4)
    torch.manual_seed(3)
    fit(X, Y, n_epochs=1)
    assert torch.equal(torch.rand(4), before)


def rows_of(X, Y, groups=GROUPS, **parameters):
    head = SharedLayerNetwork((8,), dropout=0.0, columns=groups, **parameters)
    X, Y, weight = head.check_table(X, Y, None)
    mean, variance = mean_and_variance(X, weight.max(axis=1))
    head._mean, head._scale = mean, inverse_std(variance, mean)
    torch.manual_seed(0)
    net = module._Network(X.shape[1], (8,), 0.0, groups).double()
    rows = module._Rows(X, Y, weight, head, None, torch.device("cpu"))
    rows.X, rows._half = rows.X.double(), False
    rows._parts = [(g, s, t.double(), u.double()) for g, s, t, u in rows._parts]
    return net, rows


def test_gradients_are_those_of_finite_differences():
    X, Y = table(40)
    Y[::3, 0] = np.nan
    Y[1::3, 3] = np.nan
    net, rows = rows_of(X, Y)
    batch = torch.arange(40)

    def total():
        return rows.losses(net, batch)[0].sum()

    total().backward()
    rng = np.random.default_rng(0)
    for p in net.parameters():
        flat, slope = p.data.view(-1), p.grad.view(-1)
        for i in rng.choice(len(flat), min(4, len(flat)), replace=False):
            at, step = float(flat[i]), 1e-6
            ends = []
            for sign in (1, -1):
                flat[i] = at + sign * step
                ends.append(float(total().detach()))
            flat[i] = at
            rise = (ends[0] - ends[1]) / (2 * step)
            assert slope[i].item() == pytest.approx(rise, abs=1e-6)


def test_missing_labels_leave_a_tasks_gradient_exactly_zero():
    X, Y = table(40)
    Y[:20, 0] = np.nan
    net, rows = rows_of(X, Y)
    losses, tasks = rows.losses(net, torch.arange(20))
    assert tasks.tolist() == [1, 2]
    losses.sum().backward()
    assert not net.outputs[0].weight.grad.any()
    assert net.outputs[1].weight.grad.abs().sum() > 0


def test_batches_are_unbiased():
    X, Y = table(64)
    Y[:30, 0] = np.nan
    net, rows = rows_of(X, Y)
    with torch.no_grad():
        whole = rows.losses(net, torch.arange(64))[0]
        parts = [rows.losses(net, b)[0] for b in torch.arange(32, 64).split(8)]
        first = [rows.losses(net, b) for b in torch.arange(32).split(8)]
    total = torch.stack(parts).sum(0)
    for losses, tasks in first:
        total[tasks] += losses
    torch.testing.assert_close(total / 8, whole)


def test_weights_are_repetitions():
    X, Y = table(30)
    Y[:9, 0] = np.nan
    count = np.arange(30) % 3
    net, _ = rows_of(X, Y)
    repeated = rows_of(np.repeat(X, count, 0), np.repeat(Y, count, 0))[1]
    head = SharedLayerNetwork((8,), columns=GROUPS)
    X, Y, weight = head.check_table(X, Y, count)
    mean, variance = mean_and_variance(X, weight.max(axis=1))
    head._mean, head._scale = mean, inverse_std(variance, mean)
    weighted = module._Rows(X, Y, weight, head, None, torch.device("cpu"))
    weighted.X, weighted._half = weighted.X.double(), False
    parts = [(g, s, t.double(), u.double()) for g, s, t, u in weighted._parts]
    weighted._parts = parts
    with torch.no_grad():
        a = weighted.losses(net, torch.arange(30))[0]
        b = repeated.losses(net, torch.arange(len(repeated.X)))[0]
    torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)


def test_the_null_models_loss_is_one():
    X, Y = table(500)
    model = fit(
        X, Y, n_epochs=1, learning_rate=1e-9, batch_size=500, hidden_layer_sizes=(2,)
    )
    # An untrained network is about as good as the prior, or somewhat worse.
    assert (np.abs(model.losses_[-1] - 1) < 0.5).all()
    trained = fit(X, Y, n_epochs=30)
    assert trained.losses_[-1].mean() < 0.7


def test_early_stopping_keeps_the_best_epoch_of_held_out_groups():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 30))
    y = rng.integers(0, 2, 120)  # nothing to learn: the first epochs are the best
    model = SharedLayerNetwork(
        (64,), early_stopping=True, n_epochs=30, random_state=0, dropout=0
    ).fit(X, y, groups=np.repeat(np.arange(20), 6))
    assert len(model.held_out_) >= 30
    assert model.n_iter_ == int(np.argmin(model.held_out_)) + 1
    assert model.held_out_[model.n_iter_ - 1] < model.held_out_[-1]
    with pytest.raises(ValueError, match="at least two groups"):
        clone(model).fit(X, y, groups=np.zeros(120))
    with pytest.raises(ValueError, match="groups has shape"):
        clone(model).fit(X, y, groups=np.zeros(3))


def test_sharing_helps_where_a_related_task_has_labels():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 6)).astype(np.float32)
    bent = X[:, 0] * X[:, 1] + 0.3 * X[:, 2]
    Y = np.stack([bent > 0, bent + rng.normal(0, 0.3, 3000) > 0], axis=1) * 1.0
    truth = Y[1500:, 0].copy()
    Y[40:, 0] = np.nan  # 40 labels of the first task
    groups = [ColumnGroup("binary", 1)] * 2
    shape = {"hidden_layer_sizes": (64,), "n_epochs": 60, "dropout": 0.1}
    both = fit(X[:1500], Y[:1500], groups, **shape)
    alone = fit(X[:40], Y[:40, :1], groups[:1], **shape)
    new = X[1500:]
    assert (both.predict(new)[:, 0] == truth).mean() > 0.03 + (
        alone.predict(new)[:, 0] == truth
    ).mean()


def test_weights_of_tasks_in_every_form():
    X, Y = table(100)
    for form in ([1, 1, 1], {0: 1.0}, Equal(), "equal"):
        np.testing.assert_array_equal(
            fit(X, Y, task_weights=form, n_epochs=2).decision_function(X),
            fit(X, Y, n_epochs=2).decision_function(X),
        )
    off = fit(X, Y, task_weights=[1, 0, 1], n_epochs=2)
    assert np.isfinite(off.decision_function(X)).all()
    assert isinstance(
        clone(SharedLayerNetwork(task_weights="famo")), SharedLayerNetwork
    )


def test_pickle_and_clone():
    X, Y = table(80)
    famo = FAMO()
    model = fit(X, Y, task_weights=famo, n_epochs=2)
    assert set(vars(famo)) == {"rate", "decay"}  # a fit leaves parameters alone
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        again.decision_function(X), model.decision_function(X)
    )


def test_in_the_segmenter():
    X, Y = toy_images(6)
    model = MultiTaskSegmenter(
        head="network", random_state=0, max_pixels_per_image=200
    ).fit(X, Y)
    assert isinstance(model.pixel_head_, SharedLayerNetwork)
    assert model.score(X, Y) > 0.8
    again = clone(model).fit(X, Y)
    for a, b in zip(
        model.decision_function(X[:1]), again.decision_function(X[:1]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert MultiTaskSegmenter(head="network").get_params()["head__dropout"] == 0.5


def test_weights_by_the_tasks_names():
    X, Y = toy_images(4)
    both = Targets(a=Y, b=[y == Y.max() for y in Y], count=[1.0, 2.0, 3.0, 4.0])

    def scores(weights):
        head = SharedLayerNetwork((8,), n_epochs=2, task_weights=weights)
        model = MultiTaskSegmenter(head=head, random_state=0, max_pixels_per_image=50)
        return model.fit(X, both).decision_function(X[:1])["b"][0]

    same = scores({"a": 1.0, "count": 1.0})
    np.testing.assert_array_equal(same, scores("equal"))
    assert np.abs(scores({"b": 0.01}) - same).max() > 1e-3
    with pytest.raises(UnknownTaskError, match="`task_weights` names 'c'"):
        scores({"c": 1.0})
    with pytest.raises(ValueError, match=r"a mapping of names .* got \[1, 2\]"):
        scores([1, 2])  # of which network's?


@pytest.mark.parametrize("scale", [1e300, -1e39])
def test_numbers_too_large_for_float32_are_refused(scale):
    X, _ = table(20)
    with pytest.raises(ValueError, match=r"X holds numbers up to .* too large"):
        SharedLayerNetwork().fit(X.astype(float) * scale, X[:, 0] > 0)
    with pytest.raises(ValueError, match=r"y holds numbers up to .* too large"):
        SharedLayerNetwork().fit(X, X[:, 0].astype(float) * scale)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_layer_sizes": ()}, "`hidden_layer_sizes` of SharedLayerNetwork"),
        ({"hidden_layer_sizes": (0,)}, "`hidden_layer_sizes` of SharedLayerNetwork"),
        ({"hidden_layer_sizes": 8}, "hidden_layer_sizes"),
        ({"dropout": 1.0}, "`dropout` of SharedLayerNetwork"),
        ({"learning_rate": 0}, "`learning_rate` of SharedLayerNetwork"),
        ({"n_epochs": 0}, "`n_epochs` of SharedLayerNetwork"),
        ({"batch_size": 0}, "`batch_size` of SharedLayerNetwork"),
        ({"device": "nonsense"}, "`device` of SharedLayerNetwork"),
        ({"device": "meta"}, "`device` of SharedLayerNetwork"),
        ({"learning_rate": 1e30}, "training diverged.*`learning_rate`"),
        ({"task_weights": "sum"}, "`task_weights` of SharedLayerNetwork"),
        ({"task_weights": [1, 2]}, "`task_weights` of SharedLayerNetwork"),
        ({"task_weights": [1, -2, 1]}, "`task_weights` of SharedLayerNetwork"),
        ({"task_weights": {7: 1.0}}, "`task_weights` of SharedLayerNetwork"),
        ({"task_weights": [0, 0, 0]}, "`task_weights` .* not all 0"),
        ({"task_weights": [1, 1e30, 1]}, "`task_weights` .* from 0 to 1e\\+06"),
        ({"task_weights": [1, np.nan, 1]}, "`task_weights`"),
        ({"task_weights": ["1", "1", "1"]}, "`task_weights`"),
        ({"task_weights": {0: "2"}}, "`task_weights`"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    X, Y = table(20)
    with pytest.raises(ValueError, match=message):
        fit(X, Y, **parameters)


def test_a_task_without_labels_is_refused():
    X, Y = table(20)
    Y[:, 0] = np.nan
    with pytest.raises(ValueError, match="no labelled row of positive weight"):
        fit(X, Y)


def wide_table(n=400, n_features=40, seed=0):
    """Return rows of which five directions vary most, and classes that follow them."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 5))
    mixed = hidden @ rng.normal(size=(5, n_features))
    X = (mixed + 0.05 * rng.normal(size=mixed.shape)).astype(np.float32)
    y = (hidden[:, 0] > hidden[:, 1] ** 2) + 1.0 * (hidden[:, 2] > 0)
    return X, y[:, None].astype(np.float32)


def test_components_hold_what_varies():
    X, y = wide_table(1200)
    columns = [ColumnGroup("nominal", 3)]
    few = {"n_epochs": 60, "dropout": 0.1}
    fits = {
        n: fit(X[:800], y[:800], columns, n_components=n, **few) for n in (5, 40, None)
    }
    right = {
        n: (model.predict(X[800:])[:, 0] == y[800:, 0]).mean()
        for n, model in fits.items()
    }
    assert min(right.values()) > 0.8
    weight = fits[5].network_["shared.0.weight"]
    assert weight.shape == (16, 40)  # the first layer projects by itself
    assert np.linalg.matrix_rank(weight) == 5
    # As many as there are features: they are not projected.
    np.testing.assert_array_equal(
        fits[40].decision_function(X), fits[None].decision_function(X)
    )


def test_fewer_rows_than_components():
    X, y = wide_table(30)
    columns = [ColumnGroup("nominal", 3)]
    model = fit(X, y, columns, n_components=35, n_epochs=1)
    assert np.isfinite(model.decision_function(X)).all()
    same = np.repeat(X[:1], 30, axis=0)  # no component varies
    model = fit(same, y, columns, n_components=35, n_epochs=1)
    assert np.isfinite(model.decision_function(X)).all()


def test_rows_of_weight_0_are_not_among_those_that_components_are_found_in():
    X, y = wide_table(200)
    strange = 100 * np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    columns = [ColumnGroup("nominal", 3)]

    def first_layer(others):
        model = SharedLayerNetwork((16,), n_components=5, n_epochs=1, columns=columns)
        weight = np.r_[np.ones(200), np.zeros(200)]
        model.set_params(random_state=0, device="cpu")
        model.fit(np.r_[X, others], np.r_[y, y], sample_weight=weight)
        return np.linalg.svd(model.network_["shared.0.weight"])[2][:5]

    # The same directions, whatever the rows of weight 0.
    cosines = np.linalg.svd(first_layer(strange) @ first_layer(X).T)[1]
    np.testing.assert_allclose(cosines, 1, atol=1e-4)


def test_dropout():
    torch.manual_seed(0)
    layer = Dropout(0.3)
    x = torch.ones(200, 500)
    dropped = layer(x)
    assert abs((dropped == 0).float().mean() - 77 / 256) < 0.01
    assert abs(dropped.mean() - 1) < 0.01
    assert len(dropped.unique()) == 2
    assert not torch.equal(layer(x), dropped)
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.3)(x), dropped)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert layer.train()(x.bfloat16()).dtype == torch.bfloat16


def test_dropout_passes_gradients_of_what_it_keeps():
    x = torch.ones(1000, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
