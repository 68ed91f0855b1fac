"""suggest: what to label next, for which task, and where."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from mtsk import DeepFeatures, MultiTaskSegmenter, Targets, suggest_labels
from mtsk.exceptions import ImageError, TargetError, UnknownTaskError
from mtsk.inspection.suggestion import _grid_of
from mtsk.tasks import DenseRegression, MultiLabel, Regression, SemanticSegmentation
from mtsk.testing import toy_images

X, MASKS = toy_images(8, (32, 40))
FEATURES = DeepFeatures(scales=(1,))


def labelled(indices, column=MASKS):
    """Targets of some images, None elsewhere."""
    return [y if i in indices else None for i, y in enumerate(column)]


def fitted(Y, tasks=None, **more):
    model = MultiTaskSegmenter(tasks, features=FEATURES, random_state=0, **more)
    return model.fit(X, Y)


def test_what_is_labelled_is_not_asked_for_again():
    Y = labelled({0, 3, 5})
    found = suggest_labels(fitted(Y), X, 20, Y)
    assert sorted(s.image for s in found) == [1, 2, 4, 6, 7]
    assert {s.task for s in found} == {"target"}


def test_without_labels_every_image_is_open():
    model = fitted(labelled({0, 1}))
    assert sorted(s.image for s in suggest_labels(model, X, 20)) == list(range(8))


def test_gains_fall_and_sum_to_no_more_than_one():
    gains = [s.gain for s in suggest_labels(fitted(labelled({0, 1})), X, 8)]
    assert all(np.diff(gains) <= 1e-9)
    assert 0 < sum(gains) <= 1


def test_the_choice_is_the_greedy_one():
    """Against the definition, every part a probe."""
    Y = labelled({0, 4})
    model = fitted(Y)
    found = suggest_labels(model, X, 3, Y)
    from mtsk.data.images import Images
    from mtsk.inspection.suggestion import describe_parts

    (parts,) = describe_parts(model.predictor_, Images(X), ["target"])
    places, doubt = np.concatenate(parts.places), np.concatenate(parts.doubts["target"])

    def worth(images):
        if not images:
            return 0.0
        own = np.concatenate([parts.places[i] for i in images])
        return float((doubt * (places @ own.T).clip(0).max(axis=1)).mean())

    chosen = [0, 4]
    for suggestion in found:
        adds = {
            i: worth([*chosen, i]) - worth(chosen) for i in set(range(8)) - set(chosen)
        }
        assert suggestion.image == max(adds, key=adds.get)
        assert suggestion.gain == pytest.approx(adds[suggestion.image], abs=1e-6)
        chosen.append(suggestion.image)


def test_a_stranger_comes_first_and_its_twin_last():
    rng = np.random.default_rng(0)
    strange = rng.integers(0, 256, X[0].shape).astype(np.uint8)
    images = [*X, strange, strange]
    Y = [*MASKS[:4], *[None] * 6]
    model = MultiTaskSegmenter(features=FEATURES, random_state=0).fit(images, Y)
    found = [s.image for s in suggest_labels(model, images, 6, Y)]
    assert found[0] in (8, 9)
    assert found[-1] == 17 - found[0]


def test_each_task_is_asked_for_where_it_lacks_labels():
    kinds = ["a", "b"] * 4
    Y = Targets(parts=labelled({0, 1}), kind=labelled(range(6), kinds))
    found = suggest_labels(fitted(Y), X, 50, Y)
    of = {
        name: {s.image for s in found if s.task == name} for name in ("parts", "kind")
    }
    assert of == {"parts": set(range(2, 8)), "kind": {6, 7}}
    assert all((s.box is None) == (s.task == "kind") for s in found)
    some = suggest_labels(fitted(Y), X, 50, Y, tasks=["kind"])
    assert {s.task for s in some} == {"kind"}


def test_boxes_lie_on_their_images_where_the_doubt_is():
    Y = labelled({0, 1})
    model = fitted(Y)
    for s in suggest_labels(model, X, 4, Y):
        x0, y0, x1, y1 = s.box
        height, width = X[s.image].shape[:2]
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (3, 5), (32, 40), (501, 37)])
def test_a_grid_covers_an_image_once(shape):
    cells, boxes = _grid_of(shape)
    assert cells.shape == shape
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        np.testing.assert_array_equal(cells[y0:y1, x0:x1], i)
        assert (cells == i).sum() == (x1 - x0) * (y1 - y0) > 0
        assert (cells[::4, ::4] == i).any()  # so that someone there is asked


def test_images_of_several_sizes():
    images = [x[: 20 + 2 * i, : 40 - 3 * i] for i, x in enumerate(X)]
    Y = [m[: 20 + 2 * i, : 40 - 3 * i] if i < 3 else None for i, m in enumerate(MASKS)]
    model = MultiTaskSegmenter(features=FEATURES, random_state=0).fit(images, Y)
    assert len(suggest_labels(model, images, 3, Y)) == 3


def test_doubt_is_entropy_over_the_greatest():
    task = SemanticSegmentation().fit([np.arange(4).reshape(2, 2)])
    assert task.normalized_entropy(np.zeros((2, 3, 4))) == pytest.approx(
        np.ones((2, 3))
    )
    assert task.normalized_entropy(np.array([1e3, 0, 0, 0])) == pytest.approx(0)
    tags = MultiLabel().fit([{"a", "b"}])
    assert tags.normalized_entropy(np.array([0.0, 1e3])) == pytest.approx(0.5)
    assert np.isnan(Regression().fit([1.0, 2.0]).normalized_entropy(np.zeros(1)))


def test_numbers_are_chosen_for_by_likeness():
    depth = [x.mean(axis=2) for x in X]
    Y = Targets(depth=labelled({0, 1}, depth))
    model = fitted(Y, {"depth": DenseRegression()})
    assert len(suggest_labels(model, X, 3, Y)) == 3


def test_a_structured_model_is_asked_too():
    Y = labelled({0, 1, 2})
    found = suggest_labels(fitted(Y, structure="crf"), X, 2, Y)
    assert len({s.image for s in found}) == 2


@pytest.mark.parametrize("n", [0, -1, 1.5, "3", True, None])
def test_a_number_that_is_none(n):
    with pytest.raises(ValueError, match="`n` of suggest_labels must be an int > 0"):
        suggest_labels(fitted(labelled({0, 1})), X, n)


def test_numbers_do_not_drown_labels():
    depth = [x.mean(axis=2) for x in X]
    Y = Targets(parts=labelled({0, 1}), depth=labelled({0, 1}, depth))
    found = suggest_labels(fitted(Y), X, 12, Y)
    gains = {t: [s.gain for s in found if s.task == t] for t in ("parts", "depth")}
    assert 0.2 < max(gains["parts"]) / max(gains["depth"]) < 5


@pytest.mark.parametrize("n", [1, 3])
def test_images_that_are_all_the_same(n):
    model = fitted(Targets(parts=list(MASKS), kind=["a", "b"] * 4))
    assert len(suggest_labels(model, [X[0]] * n, 9)) == 2 * n


def test_a_search_is_no_segmenter():
    search = GridSearchCV(
        MultiTaskSegmenter(features=FEATURES), {"max_pixels_per_image": [9]}, cv=2
    )
    search.fit(X, MASKS)
    with pytest.raises(TypeError, match="give its best_estimator_"):
        suggest_labels(search, X)
    assert suggest_labels(search.best_estimator_, X, 1)


def test_what_is_refused():
    model = fitted(labelled({0, 1}))
    with pytest.raises(NotFittedError):
        suggest_labels(MultiTaskSegmenter(), X)
    with pytest.raises(UnknownTaskError):
        suggest_labels(model, X, tasks=["other"])
    with pytest.raises(TargetError):
        suggest_labels(model, X, 2, MASKS[:3])
    with pytest.raises(ImageError):
        suggest_labels(model, [*X, np.zeros(3, np.uint8)], 2)
    with pytest.raises(TargetError, match="must name its tasks"):
        suggest_labels(fitted({"a": labelled({0, 1})}), X, 2, MASKS)


def test_images_that_cannot_be_read_are_left_out_when_asked():
    features = DeepFeatures(scales=(1,), on_error="skip")
    Y = labelled({0, 1})
    model = MultiTaskSegmenter(features=features, random_state=0).fit(X, Y)
    images = [*X, np.zeros(3, np.uint8)]
    with pytest.warns(UserWarning, match="8"):
        found = suggest_labels(model, images, 20, [*Y, None])
    assert sorted(s.image for s in found) == list(range(2, 8))


@pytest.mark.filterwarnings("ignore:task 'target' has one class only")
def test_a_model_that_is_sure_of_all_is_shown_what_is_unlike():
    X, _ = toy_images(6)
    one_class = [np.zeros(x.shape[:2], int) for x in X]
    model = MultiTaskSegmenter(features=DeepFeatures(scales=[1]), random_state=0)
    model.fit(X[:2], one_class[:2])
    found = suggest_labels(model, X, 2, [*one_class[:2], None, None, None, None])
    assert min(s.gain for s in found) > 0
