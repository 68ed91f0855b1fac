"""SharedDecoder: what it learns, what it leaves alone, what it refuses."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from mtsk import DeepFeatures, MultiTaskSegmenter, SharedDecoder, Targets
from mtsk._validation import InvalidParameterError
from mtsk.decoders import Augmentation, decoder
from mtsk.decoders.batches import BatchLoader
from mtsk.exceptions import TargetError, UnknownTaskError
from mtsk.tasks import SemanticSegmentation
from mtsk.testing import image_estimator_checks


class Tiny(nn.Module):
    """Strides 2 and 4, eight channels each."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.a = nn.Conv2d(3, 8, 3, 2, 1)
            self.b = nn.Conv2d(8, 8, 3, 2, 1)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


NETWORK = Tiny()


def scenes(n=6, height=32, width=40, seed=0):
    """Squares left or right of a line that only their place tells apart."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 60, (n, height, width), dtype=np.uint8)
    Y = np.zeros((n, height, width), int)
    for i in range(n):
        row, col = rng.integers(2, height - 14), rng.integers(2, width - 14)
        X[i, row : row + 12, col : col + 12] += 150
        Y[i, row : row + 12, col : col + 12] = 1
    return X, Y


def model(head=None, **parameters):
    settings = {
        "width": 8,
        "n_blocks": 1,
        "stride": 2,
        "n_points": 64,
        "dropout": 0.0,
    }
    head = head or SharedDecoder(**{**settings, **parameters})
    features = DeepFeatures(NETWORK, scales=(1,), device="cpu")
    return MultiTaskSegmenter(features=features, head=head, random_state=0)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(SharedDecoder, "min_steps", 60)


def every_kind(X, Y):
    return Targets(
        parts=list(Y),
        square=list(Y == 1),
        depth=[np.where(y, 40.5, 10.5) for y in Y],
        size=[float(y.sum()) for y in Y],
        tag=list(np.where(np.arange(len(X)) % 2, "odd", "even")),
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"architecture": "unet"},
        {"augment": Augmentation(crop=(24, 32))},
        {"augment": "flip"},
        {"finetune": "last"},
        {"finetune": "all", "augment": True},
    ],
    ids=str,
)
def test_all_kinds_of_tasks(parameters):
    X, Y = scenes(8)
    fitted = model(n_epochs=60, **parameters).set_params(random_state=2)
    fitted.fit(X, every_kind(X, Y))
    scores = fitted.score_tasks(X, every_kind(X, Y))
    assert scores["parts"] > 0.85
    assert scores["square"] > 0.55  # IoU of squares of 8 × 8 pixels
    assert scores["depth"] > 0.6
    found = fitted.predict(X)
    assert found["parts"].shape == Y.shape
    assert found["depth"].shape == Y.shape
    assert set(found["tag"]) <= {"odd", "even"}
    assert found["size"].shape == (8,)


def test_tasks_of_whole_images_alone():
    X, _ = scenes(6)
    X[::2] //= 3
    kinds = ["dark", "light"] * 3
    targets = Targets(kind=kinds, tags=[{k} for k in kinds], light=[0.1, 0.9] * 3)
    for parameters in ({}, {"architecture": "unet", "augment": "flip"}):
        fitted = model(n_epochs=60, **parameters).fit(X, targets)
        assert list(fitted.predict(X)["kind"]) == kinds
        assert fitted.pixel_head_ is None


def test_few_pixels_are_not_drawn_a_billion_times():
    X, Y = scenes(2)
    model(n_points=10**9, n_epochs=1).fit(X, Y)


def test_it_sees_what_lies_beside():
    """Equal pixels, told apart by a dot ten pixels away, which no pixel shows."""
    rng = np.random.default_rng(0)
    X = np.zeros((12, 32, 32), np.uint8)
    Y = np.full((12, 32, 32), -1)
    for i in range(12):
        X[i, 12:20, 12:20] = 100
        Y[i, 12:20, 12:20] = i % 2
        X[i, 12:20, 24:28] = 255 * (i % 2)
    X += rng.integers(0, 5, X.shape, dtype=np.uint8)
    near = model(n_blocks=3, n_epochs=80, learning_rate=5e-3).fit(X, Y)
    assert near.score(X, Y) > 0.9
    alone = model("network").fit(X, Y)
    assert alone.score(X, Y) < 0.75


def test_the_same_seed_gives_the_same_bits():
    X, Y = scenes()
    augment = Augmentation(crop=(24, 24), rotate=10)
    for parameters in ({}, {"augment": augment, "finetune": "all", "dropout": 0.2}):
        a, b = (model(**parameters).fit(X, Y) for _ in range(2))
        np.testing.assert_array_equal(a.decision_function(X), b.decision_function(X))
    other = model(**parameters).set_params(random_state=1).fit(X, Y)
    assert not np.array_equal(other.decision_function(X), a.decision_function(X))


def test_the_state_of_torch_is_left_alone():
    X, Y = scenes(4)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    model().fit(X, Y)
    assert torch.equal(torch.rand(2), expected)


def test_unlabelled_images_and_pixels_change_nothing_for_a_task(monkeypatch):
    """With one task missing somewhere, its gradient there is exactly zero."""
    X, Y = scenes(4)
    known = [Y[0], Y[1], None, None]
    head = SharedDecoder(width=8, n_blocks=1, n_points=64)
    gradients = []

    class Spy(BatchLoader):
        def losses(self, network, batch):
            losses, tasks = super().losses(network, batch)
            for t, loss in zip(tasks.tolist(), losses, strict=True):
                slopes = torch.autograd.grad(
                    loss,
                    [layer.weight for layer in network.maps],
                    retain_graph=True,
                    allow_unused=True,
                )
                gradients.append((t, [s is not None and bool(s.any()) for s in slopes]))
            return losses, tasks

    monkeypatch.setattr(decoder, "BatchLoader", Spy)
    model(head).fit(X, Targets(a=known, b=[None, None, Y[2] > 0, Y[3] > 0]))
    assert {t for t, _ in gradients} == {0, 1}
    for t, reached in gradients:
        assert reached == [t == 0, t == 1]


def test_void_pixels_teach_nothing():
    """Whatever stands in them: void by value and unlabelled are the same fit."""
    X, Y = scenes(4)
    void, unlabelled = Y.copy(), Y.copy()
    void[:, ::2], unlabelled[:, ::2] = 9, -1
    tasks = SemanticSegmentation(void=9)
    fitted = model().set_params(tasks=tasks).fit(X, void)
    assert fitted.tasks_["target"].classes_.tolist() == [0, 1]
    plain = model().fit(X, unlabelled)
    np.testing.assert_array_equal(
        fitted.decision_function(X), plain.decision_function(X)
    )
    assert fitted.score(X, Y) > 0.7


def test_images_of_many_sizes():
    X, Y = scenes(6)
    X = [x[: 32 - 3 * (i % 3), : 40 - 5 * (i % 2)] for i, x in enumerate(X)]
    Y = [y[: x.shape[0], : x.shape[1]] for x, y in zip(X, Y, strict=True)]
    fitted = model(n_epochs=40).fit(X, Y)
    assert [p.shape for p in fitted.predict(X)] == [x.shape for x in X]
    assert fitted.score(X, Y) > 0.7


def test_points_are_pixels_of_the_whole():
    X, Y = scenes(4)
    fitted = model().fit(X, Y)
    (maps,) = fitted.features_.transform(X[:1])
    points = np.array([[0, 0], [7, 33], [31, 39], [16, 2]])
    whole, _ = fitted.pixel_head_.scores(maps)
    some, _ = fitted.pixel_head_.scores(maps, points)
    np.testing.assert_allclose(some, whole[tuple(points.T)], atol=1e-4)


def test_a_frozen_backbone_is_left_alone():
    X, Y = scenes(4)
    before = {k: v.clone() for k, v in NETWORK.state_dict().items()}
    frozen, tuned = model().fit(X, Y), model(finetune="all").fit(X, Y)
    assert all(torch.equal(before[k], v) for k, v in NETWORK.state_dict().items())
    assert not any(p.grad is not None for p in NETWORK.parameters())
    assert frozen.features_.backbone is NETWORK
    own = tuned.features_.backbone
    assert tuned.features_.backbone_digest_ != frozen.features_.backbone_digest_
    assert not torch.equal(own.network.a.weight, NETWORK.a.weight)


def test_the_last_layers_alone_are_tuned():
    X, Y = scenes(4)
    own = model(finetune="last").fit(X, Y).features_.backbone.network
    assert torch.equal(own.a.weight, NETWORK.a.weight)
    assert not torch.equal(own.b.weight, NETWORK.b.weight)


def test_it_survives_pickling_and_cloning():
    X, Y = scenes(4)
    for parameters in ({}, {"finetune": "all"}):
        fitted = model(**parameters).fit(X, Y)
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
        assert not hasattr(clone(fitted), "tasks_")


def test_kept_and_computed_anew_are_the_same(monkeypatch):
    X, Y = scenes(4)
    kept = model().fit(X, Y).decision_function(X)
    monkeypatch.setattr(BatchLoader, "max_kept_bytes", 0)
    anew = model().fit(X, Y).decision_function(X)
    assert np.abs(kept - anew).max() < 0.05 * np.abs(kept).max()  # half precision kept


def test_model_selection():
    X, Y = scenes(6)
    # One that learns nothing, and one that does: the search must tell them apart.
    grid = {"head__learning_rate": [1e-9, 2e-3]}
    search = GridSearchCV(model(), grid, cv=2).fit(X, list(Y))
    assert search.best_params_ == {"head__learning_rate": 2e-3}
    named = MultiTaskSegmenter(head="unet").set_params(head__width=16)
    assert named.head.architecture == "unet"
    assert named.head.width == 16


@pytest.mark.parametrize(
    "name", ["uncertainty", "geometric", "gradnorm", "dwa", "famo", "pcgrad"]
)
def test_every_weighting_trains(name):
    X, Y = scenes(4)
    targets = Targets(a=list(Y), b=list(Y == 1), c=list(np.arange(4) % 2))
    fitted = model(task_weights=name, finetune="last").fit(X, targets)
    assert np.isfinite(fitted.pixel_head_.losses_).all()


def test_weights_by_name_follow_the_tasks():
    X, Y = scenes(4)
    tags = list(np.arange(4) % 2)
    targets = Targets(tag=tags, parts=list(Y))  # image task first, as given
    fitted = model(task_weights={"parts": 3.0}).fit(X, targets)
    assert fitted.pixel_head_.task_weights == {0: 3.0}
    with pytest.raises(UnknownTaskError, match="`task_weights` names 'edges'"):
        model(task_weights={"edges": 1.0}).fit(X, targets)


def test_image_weights_count():
    X, Y = scenes(4)
    wrong = Y.copy()
    wrong[2:] = 1 - wrong[2:]
    fitted = model(n_epochs=40).fit(X, wrong, sample_weight=[1, 1, 0, 0])
    assert fitted.score(X, Y) > 0.8


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"architecture": "segnet"}, "`architecture` of SharedDecoder"),
        ({"width": 0}, "`width` of SharedDecoder"),
        ({"n_blocks": 1.5}, "`n_blocks` of SharedDecoder"),
        ({"stride": 0}, "`stride` of SharedDecoder"),
        ({"dropout": 1}, "`dropout` of SharedDecoder"),
        ({"learning_rate": 0}, "`learning_rate` of SharedDecoder"),
        ({"n_epochs": 0}, "`n_epochs` of SharedDecoder"),
        ({"batch_size": None}, "`batch_size` of SharedDecoder"),
        ({"n_points": 0}, "`n_points` of SharedDecoder"),
        ({"augment": "turn"}, "`augment` of SharedDecoder"),
        ({"augment": Augmentation(flip=3)}, "`flip` of Augmentation"),
        ({"finetune": "first"}, "`finetune` of SharedDecoder"),
        ({"task_weights": "best"}, "`task_weights` of SharedDecoder"),
        ({"class_weight": "log"}, "`class_weight` of SharedDecoder"),
    ],
)
def test_bad_parameters(parameters, message):
    X, Y = scenes(2)
    with pytest.raises(InvalidParameterError, match=message):
        model(**parameters).fit(X, Y)


def test_what_a_decoder_cannot_do():
    X, Y = scenes(2)
    with pytest.raises(InvalidParameterError, match="`structure` of MultiTask"):
        model().set_params(structure="crf").fit(X, Y)
    with pytest.raises(InvalidParameterError, match="for all tasks"):
        model({"target": SharedDecoder()}).fit(X, Y)
    with pytest.raises(AttributeError, match="partial_fit needs a `head`"):
        model(task_weights={"parts": 2.0}).partial_fit(X, Y)
    with pytest.raises(AttributeError, match="partial_fit needs a `head`"):
        model().partial_fit(X, Y)


def test_bad_targets_name_task_and_image():
    X, Y = scenes(3)
    bad = [Y[0], Y[1][:-1], Y[2]]
    with pytest.raises(TargetError, match="image 1"):
        model().fit(X, bad)
    with pytest.raises(TargetError, match="no pixel of any image is labelled"):
        model().fit(X, Targets(a=list(Y), b=[np.full(Y[0].shape, np.nan)] * 3))


def test_divergence_is_told():
    X, Y = scenes(4)
    with pytest.raises(ValueError, match="training diverged in epoch"):
        model(learning_rate=1e12, n_epochs=5).fit(X, [y * 1e3 + 0.5 for y in Y])


CHECKS = [
    (name, check)
    for parameters in ({}, {"augment": Augmentation(crop=(24, 24)), "finetune": "last"})
    for name, check in image_estimator_checks(model(**parameters))
]


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_conformance(name, check):
    check()
