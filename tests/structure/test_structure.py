"""Structure in the segmenter: graphs of regions, learning, messages."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from mtsk import DeepFeatures, MultiTaskSegmenter, Targets
from mtsk.crf import Coupling, PixelCRF, SuperpixelCRF
from mtsk.features import MemoryCache
from mtsk.inspection import superpixel_upper_bound
from mtsk.links import Links
from mtsk.links.context import ContextLink, find_context
from mtsk.structure import Structure, Superpixels
from mtsk.structure.region_graph import (
    EDGE_FEATURES,
    Picture,
    region_graph,
    region_labels,
)
from mtsk.tasks import Boundary, MultiLabel
from mtsk.tasks.task_set import TaskSet
from mtsk.testing import toy_images

CACHE = MemoryCache()


def coarse(structure="crf", **parameters):
    """Return a structure of few regions, which take little time."""
    if structure == "crf":
        structure = Structure(SuperpixelCRF(), PixelCRF())
    if isinstance(structure, SuperpixelCRF):
        structure = Structure(structure)
    if isinstance(structure, Structure):
        return clone(structure).set_params(**{"n_segments": 60, **parameters})
    return structure


def model(structure="crf", **parameters):
    return MultiTaskSegmenter(
        features=DeepFeatures(scales=[1], cache=CACHE),
        structure=coarse(structure),
        **{"random_state": 0, **parameters},
    )


BOUNDARY = {"edges": Boundary()}


@pytest.fixture(scope="module")
def toys():
    return toy_images(8)


@pytest.fixture(scope="module")
def targets(toys):
    _, Y = toys
    return Targets(
        semantic=Y,
        disc=[y == Y.max() for y in Y],
        edges=[np.abs(np.gradient(y.astype(float))[0]) > 0 for y in Y],
        tags=[set(np.unique(y).tolist()) for y in Y],
        depth=[y * 0.5 for y in Y],
    )


@pytest.fixture(scope="module")
def fitted(toys, targets):
    crf = SuperpixelCRF(strength=1.0, temperature=1.0)
    return model(crf, tasks=BOUNDARY).fit(toys[0], targets)


def test_an_edge_has_its_features(toys):
    image = np.zeros((40, 40, 3), np.float32)
    image[:20, :, 0] = 1.0
    maps = DeepFeatures(scales=[1]).fit_transform(image[None])[0]
    halves = np.zeros((40, 40), int)
    halves[20:] = 1
    picture = Picture(image, maps, Superpixels(lambda _: halves))
    boundary = np.full((40, 40), -50.0)
    boundary[19:21] = 50.0
    graph = region_graph(picture, np.zeros((40, 40, 3)), boundary)
    assert graph.edges.tolist() == [[0, 1]]
    assert graph.sizes.tolist() == [800, 800]
    length, colour, feature, rise, rim = graph.features[0]
    assert graph.features.shape[1] == len(EDGE_FEATURES)
    assert length == pytest.approx(40 / np.sqrt(800))
    assert colour == pytest.approx(11.7, abs=0.2)  # of red and black in L*a*b*, over 10
    assert feature == pytest.approx(1)  # the only distance is the mean distance
    assert rise == pytest.approx(1)
    assert rim == pytest.approx(1)
    assert region_graph(picture, np.zeros((40, 40, 3))).features[0, 4] == 0


def test_one_region_is_a_graph_without_edges(toys):
    X, _ = toys
    maps = DeepFeatures(scales=[1]).fit_transform(X[:1])[0]
    image = (
        np.repeat(X[0][..., None] / 255, 3, axis=2) if X[0].ndim == 2 else X[0] / 255
    )
    picture = Picture(image, maps, Superpixels(lambda i: np.zeros(i.shape[:2], int)))
    graph = region_graph(picture, np.zeros((*maps.shape, 2)))
    assert graph.edges.shape == (0, 2)
    assert graph.features.shape == (0, 5)


def test_labels_of_regions():
    segments = np.array([[0, 0, 0, 1, 1, 2]])
    codes = np.array([[1, 1, 0, 2, np.nan, np.nan]])
    assert region_labels(segments, codes, 3).tolist() == [1, 2, -1]
    assert region_labels(segments, codes, 3, purity=0.9).tolist() == [-1, -1, -1]


def test_tasks_of_classes_and_masks_have_structure(fitted, toys, targets):
    assert list(fitted.structures_) == ["semantic", "disc"]
    guess = fitted.predict(toys[0])
    assert guess["disc"].dtype == bool
    assert list(guess) == targets.task_names
    assert fitted.score_tasks(toys[0], targets)["semantic"] > 0.8


def test_strength_0_is_exactly_no_structure(toys, targets):
    X, _ = toys
    none = model(None).fit(X, targets).decision_function(X)
    zero = model(SuperpixelCRF(strength=0)).fit(X, targets).decision_function(X)
    for name in targets.task_names:
        for a, b in zip(none[name], zero[name], strict=True):
            np.testing.assert_array_equal(a, b)


def test_messages_are_one_number_a_region_and_label(fitted, toys, targets):
    X, _ = toys
    plain = model(None, tasks=BOUNDARY).fit(X, targets)
    moved = fitted.decision_function(X[:1])
    before = plain.decision_function(X[:1])
    for name in ("edges", "depth"):
        np.testing.assert_allclose(moved[name][0], before[name][0], atol=1e-5)
    change = moved["semantic"][0] - before["semantic"][0]
    assert np.abs(change).max() > 0.01
    views = next(iter(fitted.features_.iter_views_and_maps(X[:1])))[1]
    segments = Picture(views[0], None, Superpixels("slic", 60)).segments
    for region in range(0, segments.max() + 1, 7):
        spread = np.ptp(change[segments == region], axis=0)
        assert spread.max() < 1e-3


def test_scores_at_some_pixels_are_those_of_the_map(fitted, toys, targets):
    X, Y = toys
    every = fitted.score_tasks(X, {"semantic": Y}, max_pixels_per_image=10**6)
    assert every == pytest.approx(fitted.score_tasks(X, {"semantic": Y}), abs=1e-3)


def test_a_grid_search_over_strength(toys):
    X, Y = toys
    # So strong that all regions would take one label: the search must not choose it.
    search = GridSearchCV(
        model(SuperpixelCRF(temperature=1.0)),
        {"structure__regions__strength": [1, 1e4]},
        cv=2,
    ).fit(X, Y)
    assert search.best_estimator_.structure.regions.strength == 1
    assert search.best_score_ > 0.5


def test_clone_and_pickle(fitted, toys):
    X, _ = toys
    again = pickle.loads(pickle.dumps(fitted))
    for a, b in zip(
        fitted.decision_function(X[:2])["semantic"],
        again.decision_function(X[:2])["semantic"],
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert clone(fitted).structure.regions.strength == 1.0


def test_the_html_shows_structure(fitted):
    assert "SuperpixelCRF" in fitted._repr_html_()
    assert "PixelCRF" in model()._repr_html_()
    assert "CRF" not in model(None)._repr_html_()


def test_a_task_on_two_images_has_no_structure(toys):
    X, Y = toys
    some = Targets(semantic=[y if i < 2 else None for i, y in enumerate(Y)], other=Y)
    with pytest.warns(UserWarning, match="'semantic' is labelled on fewer than 3"):
        fitted = model().fit(X, some)
    assert list(fitted.structures_) == ["other"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"structure": "graph"}, "`structure` of MultiTaskSegmenter"),
        ({"structure": 3}, "`structure` of MultiTaskSegmenter"),
        ({"structure": Structure(superpixels="seeds")}, "`superpixels` of Structure"),
        ({"structure": Structure(n_segments=0)}, "`n_segments` of Structure"),
        ({"structure": Structure(n_segments=9)}, "`regions` of Structure"),
        (
            {"links": Links(n_pseudo_label_rounds=-1)},
            "`n_pseudo_label_rounds` of Links",
        ),
        ({"links": 2}, "`links` of MultiTaskSegmenter"),
    ],
)
def test_bad_parameters_are_named(toys, parameters, message):
    X, Y = toys
    with pytest.raises(ValueError, match=f"{message} must be"):
        MultiTaskSegmenter(**parameters).fit(X, Y)


def test_parameters_of_a_structure_that_is_not_there_are_refused():
    plain = MultiTaskSegmenter()
    with pytest.raises(ValueError, match=r"'structure__couple' cannot be set.*\"crf\""):
        plain.set_params(structure__couple=False)
    pixels = MultiTaskSegmenter(structure=Structure(pixels=PixelCRF()))
    with pytest.raises(
        ValueError, match="`regions` of Structure is None; set it first"
    ):
        pixels.set_params(structure__regions__strength=1.0)
    both = plain.set_params(structure="crf", structure__couple=False)
    assert both.structure.couple is False


def test_tags_and_the_scene_speak_of_regions(toys):
    X, Y = toys
    tasks = {"tags": MultiLabel(of="semantic")}
    disc = np.array(["moon", "sun"])  # of even and of odd images
    words = [np.where(y == np.max(Y), disc[i % 2], "sky") for i, y in enumerate(Y)]
    fine = Targets(
        semantic=words,
        tags=[set(np.unique(w).tolist()) for w in words],
        scene=["odd" if i % 2 else "even" for i in range(len(Y))],
    )
    crf = SuperpixelCRF(strength=1, temperature=1, context=1, palette=0)
    fitted = model(crf, tasks=tasks).fit(X, fine)
    assert [(c.pixels, c.source) for c in fitted.contexts_] == [
        ("semantic", "tags"),
        ("semantic", "scene"),
    ]
    deaf = model(clone(crf).set_params(context=0), tasks=tasks).fit(X, fine)
    own, without = (m.decision_function(X[:1]) for m in (fitted, deaf))
    assert np.abs(own["semantic"][0] - without["semantic"][0]).max() > 1e-3
    np.testing.assert_allclose(own["tags"], without["tags"])
    some = fitted.decision_function(X[:1], tasks=["semantic"])["semantic"][0]
    np.testing.assert_array_equal(some, own["semantic"][0])


def test_context_by_hand():
    tags = MultiLabel(labels=["cow", "sky"]).fit([{"cow"}, {"sky"}])
    link = ContextLink(
        "s", "t", np.array([[0, 1.0, 0], [0, 0, 1]]), np.array([np.nan, 0.5, 0.1])
    )
    told = link.context(tags, np.array([50.0, -50.0]))
    assert told[0] == 0
    assert told[1] == pytest.approx(np.log(1.01 / 0.51))
    assert told[2] == pytest.approx(np.log(0.01 / 0.11))


def test_a_scene_is_learnt_from_images_with_both(toys):
    _, Y = toys
    labels = [0, 1, *[None] * 6]
    few = Targets(semantic=Y, scene=labels)
    assert find_context(TaskSet.fit({}, few), few, []) == []
    masks = [np.full((4, 4), i % 2) for i in range(8)]
    both = Targets(semantic=masks, scene=[i % 2 for i in range(8)])
    (link,) = find_context(TaskSet.fit({}, both), both, [])
    np.testing.assert_allclose(link.base, [0.5, 0.5])
    np.testing.assert_allclose(link.presence, [[5 / 6, 1 / 6], [1 / 6, 5 / 6]])


def test_coupled_tasks_are_predicted_alike_alone_and_together(toys, targets):
    X, _ = toys
    structure = Structure(SuperpixelCRF(strength=0.5, temperature=1.0))
    fitted = model(structure, tasks=BOUNDARY).fit(X, targets)
    fitted.couplings_.append(Coupling("semantic", "disc", np.eye(2) * 2, 1.0))
    both = fitted.decision_function(X[:2])
    for name in ("semantic", "disc"):
        alone = fitted.decision_function(X[:2], tasks=[name])[name]
        for a, b in zip(alone, both[name], strict=True):
            # Not equal to the bit: the scores of one task and of all are matrix
            # products of different widths, which add up in different orders.
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())
    fitted.couplings_.clear()
    free = fitted.decision_function(X[:1])
    assert np.abs(free["disc"][0] - both["disc"][0]).max() > 1e-3


@pytest.mark.parametrize(
    "structure", [PixelCRF(), Structure(pixels=PixelCRF(strength=1))]
)
def test_other_forms_of_structure(toys, targets, structure):
    X, _ = toys
    fitted = model(structure).fit(X, targets)
    assert fitted.score_tasks(X, targets)["semantic"] > 0.8
    assert all(s.regions is None for s in fitted.structures_.values())


def test_the_oracle_of_superpixels(toys, targets):
    X, Y = toys
    fitted = model(None, tasks=BOUNDARY).fit(X, targets)
    found = superpixel_upper_bound(fitted, X, targets)
    assert list(found) == ["semantic", "disc"]
    assert all(0.5 < value <= 1 for value in found.values())
    pixels = fitted.set_params(
        structure=Structure(
            superpixels=lambda i: np.arange(i[..., 0].size).reshape(i.shape[:2])
        )
    )
    assert superpixel_upper_bound(pixels, X, targets) == {"semantic": 1.0, "disc": 1.0}
    with pytest.raises(
        ValueError, match="no label of a task of classes or masks; Y has"
    ):
        superpixel_upper_bound(fitted, X, {"depth": targets["depth"]})
    with pytest.raises(ValueError, match="no label in Y that the model knows"):
        superpixel_upper_bound(fitted, X, {"semantic": np.full((8, *Y[0].shape), 77)})


def test_masks_that_are_void_everywhere_teach_no_structure(toys):
    X, Y = toys
    void = [np.full_like(y, -1) if i < 6 else y for i, y in enumerate(Y)]
    with (
        pytest.warns(UserWarning, match="labelled on fewer than 3"),
        pytest.warns(UserWarning, match="void everywhere count as missing"),
    ):
        fitted = model().fit(X, void)
    assert fitted.structures_ == {}


def test_partial_fit_and_structure_do_not_go_together(toys):
    X, Y = toys
    from mtsk import JointRidge

    head = JointRidge(alpha=1e-3, calibrate=False)
    with pytest.raises(AttributeError, match="cannot do `structure`"):
        model(head=head).partial_fit(X, Y)


def test_errors_that_tell_what_to_mend(toys, targets):
    X, Y = toys
    with pytest.raises(ValueError, match="`superpixels`: a segmentation must be"):
        model(coarse(superpixels=lambda image: image[..., 0])).fit(X, Y)
    with pytest.raises(ValueError, match="`strength` of SuperpixelCRF"):
        model(SuperpixelCRF(strength=-1)).fit(X, Y)
    with pytest.raises(ValueError, match="finite, >= 0 and not 0 everywhere"):
        model().fit(X, Y, sample_weight=np.zeros(8))
    some = Targets(semantic=[Y[0], *[None] * 7], depth=targets["depth"])
    with pytest.raises(ValueError, match=r"'semantic': sample_weight is 0 for every"):
        model().fit(X, some, sample_weight=[0, 1, 1, 1, 1, 1, 1, 1])
