"""Objects, numbers and pictures learnt by the segmenter, together, labels missing."""

import pickle

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import GridSearchCV, cross_val_score

from mtsk import (
    DeepFeatures,
    MultiTaskSegmenter,
    SharedDecoder,
    Targets,
    make_task_scorer,
)
from mtsk.datasets import make_digit_scenes
from mtsk.exceptions import TargetError
from mtsk.features import MemoryCache
from mtsk.inspection import task_table
from mtsk.tasks import (
    BinaryMask,
    Boundary,
    Count,
    DenseRegression,
    DensityCount,
    Detection,
    ImageToImage,
    InstanceSegmentation,
    Ordinal,
    SemanticSegmentation,
    SurfaceNormals,
)
from mtsk.tasks.postprocess import ConnectedComponents, FillHoles, RemoveSmall, Steps

FEATURES = DeepFeatures(scales=[1], cache=MemoryCache())
N, SIZE = 6, (40, 56)
SCENES = make_digit_scenes(
    N, size=SIZE, digit_size=(16, 28), n_digits=(1, 2), random_state=0
)
X = SCENES.images
Y = SCENES.targets


def middles(ids):
    return np.array(
        [np.argwhere(ids == i).mean(axis=0) for i in range(1, ids.max() + 1)]
    ).reshape(-1, 2)


def slopes(depth):
    down, across = np.gradient(depth.astype(float))
    normal = np.stack([-across, -down, np.ones_like(down)], axis=-1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


TASKS = {
    "instances": InstanceSegmentation(min_size=5),
    "boxes": Detection(threshold=0.1),
    "edges": Boundary(),
    "depth": DenseRegression("log"),
    "normals": SurfaceNormals(),
    "density": DensityCount(),
    "grey": ImageToImage(),
    "count": Count(),
    "many": Ordinal(["few", "some"]),
}
COLUMNS = {
    "instances": Y["instances"],
    "boxes": Y["boxes"],
    "edges": Y["instances"],
    "depth": Y["depth"],
    "normals": [slopes(d) for d in Y["depth"]],
    "density": [middles(i) for i in Y["instances"]],
    "grey": [x.mean(axis=2).round().astype(np.uint8) for x in X],
    "count": Y["count"],
    "many": ["some" if c > 1 else "few" for c in Y["count"]],
}
HEADS = {
    "logistic": None,
    "ridge": "ridge",
    "network": "network",
    "forest": RandomForestRegressor(n_estimators=3, max_depth=3),
    "fcn": SharedDecoder(width=8, n_blocks=1, n_epochs=1, n_points=200),
}


def fitted(head=None, names=tuple(TASKS), columns=COLUMNS, **more):
    return MultiTaskSegmenter(
        {n: TASKS[n] for n in names},
        features=FEATURES,
        head=head,
        max_pixels_per_image=60,
        random_state=0,
        **more,
    ).fit(X, Targets({n: columns[n] for n in names}))


@pytest.mark.parametrize("head", [h for h in HEADS if h != "forest"])
def test_every_task_with_every_head(head):
    model = fitted(HEADS[head])
    guess = model.predict(X[:2])
    assert guess["instances"].dtype == np.int32
    assert guess["instances"].shape == (2, *SIZE)
    assert isinstance(guess["boxes"], list)
    assert set(guess["boxes"][0]) == {"boxes", "labels", "scores"}
    assert guess["boxes"][0]["boxes"].shape == (len(guess["boxes"][0]["labels"]), 4)
    assert guess["edges"].dtype == bool
    assert (guess["depth"] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(guess["normals"], axis=-1), 1, rtol=1e-4)
    assert guess["density"].shape == (2, *SIZE)
    assert guess["grey"].dtype == np.uint8
    assert isinstance(guess["count"][0], int | np.integer)
    assert set(guess["many"]) <= {"few", "some"}
    scores = model.score_tasks(X[:3], Targets(COLUMNS)[:3])
    assert np.isfinite(list(scores.values())).all()
    assert -np.inf < model.score(X[:3], Targets(COLUMNS)[:3]) <= 1
    again = pickle.loads(pickle.dumps(model)).predict(X[:2])
    np.testing.assert_array_equal(again["instances"], guess["instances"])
    with pytest.raises(
        AttributeError, match="'instances', a InstanceSegmentation, has"
    ):
        model.predict_proba(X[:1], tasks=["instances"])


def test_a_head_for_one_task_serves_all_its_groups():
    # a regressor for all columns of the instances, the default for the rest
    names = ("instances", "count")
    model = fitted({"count": HEADS["forest"]}, names)
    assert model.predict(X[:1])["instances"].shape == (1, *SIZE)


def test_unknown_images_of_a_task_change_nothing_for_it():
    # Law 7: boxes on some images, masks on others, tags on the rest.
    part = {
        "instances": [e if i < 2 else None for i, e in enumerate(COLUMNS["instances"])],
        "boxes": [e if 2 <= i < 4 else None for i, e in enumerate(COLUMNS["boxes"])],
        "tags": [e if i >= 4 else None for i, e in enumerate(Y["tags"])],
    }
    model = MultiTaskSegmenter(
        {n: TASKS[n] for n in ("instances", "boxes")},
        features=FEATURES,
        max_pixels_per_image=60,
        random_state=0,
    ).fit(X, Targets(part))
    guess = model.predict(X)
    assert set(guess) == set(part)
    alone = fitted(None, ("instances",), part)
    np.testing.assert_array_equal(
        alone.predict(X)["instances"], guess["instances"]
    )  # Law 5 too: nothing is shared


@pytest.mark.filterwarnings("ignore:.*are not among the classes")
def test_parameters_of_tasks_can_be_searched():
    search = GridSearchCV(
        MultiTaskSegmenter(
            {"boxes": Detection()},
            features=FEATURES,
            max_pixels_per_image=40,
            random_state=0,
        ),
        {"tasks__boxes__overlap": [0.3, 0.6], "tasks__boxes__suppression": ["soft"]},
        cv=2,
    ).fit(X, Targets(boxes=Y["boxes"]))
    assert np.isfinite(search.best_score_)


def test_postprocessing_is_searched_and_applied():
    mask = [s != 10 for s in Y["semantic"]]
    task = BinaryMask(
        postprocess=Steps([("fill", FillHoles()), ("small", RemoveSmall())])
    )
    model = MultiTaskSegmenter(
        {"digit": task}, features=FEATURES, max_pixels_per_image=60, random_state=0
    )
    model.set_params(tasks__digit__postprocess__small__min_size=10**6)
    assert not model.fit(X, {"digit": mask}).predict(X)["digit"].any()
    grid = {"tasks__digit__postprocess__small__min_size": [1, 20]}
    scoring = {"iou": make_task_scorer("digit", "iou")}
    search = GridSearchCV(model, grid, cv=2, scoring=scoring["iou"])
    results = search.fit(X, Targets(digit=mask)).cv_results_["mean_test_score"]
    assert np.isfinite(results).all()
    assert results[0] != results[1]
    parts = SemanticSegmentation(postprocess=ConnectedComponents())
    with pytest.raises(ValueError, match="no classes; ids are for BinaryMask"):
        MultiTaskSegmenter(parts, features=FEATURES, max_pixels_per_image=60).fit(
            X, list(Y["semantic"])
        ).predict(X)
    classes = SemanticSegmentation(postprocess=RemoveSmall(10**6))
    found = MultiTaskSegmenter(classes, features=FEATURES, max_pixels_per_image=60).fit(
        X, list(Y["semantic"])
    )
    assert found.predict(X[:1]).shape == (1, *SIZE)


@pytest.mark.filterwarnings("ignore:.*are not among the classes")
def test_boxes_are_known_by_their_form():
    model = MultiTaskSegmenter(
        features=FEATURES, max_pixels_per_image=40, random_state=0
    )
    assert np.isfinite(cross_val_score(model, X, list(Y["boxes"]), cv=2)).all()
    assert isinstance(model.fit(X, Y.subset(["boxes"])).tasks_["boxes"], Detection)


def test_objects_that_few_pixels_show_are_learnt_from():
    # One object of nine pixels among thousands: rows are taken from it all the same.
    ids = np.zeros((N, *SIZE), int)
    ids[:, 10:13, 20:23] = 1
    model = MultiTaskSegmenter(
        InstanceSegmentation(),
        features=FEATURES,
        max_pixels_per_image=12,
        random_state=0,
    )
    table = task_table(model, X, ids)
    assert (~np.isnan(table.y[:, 1])).sum() == 9 * N
    assert model.fit(X, ids).predict(X[:1]).shape == (1, *SIZE)


def test_no_object_anywhere_is_told():
    with pytest.raises(TargetError, match=r"task 'target'.*no entry has an object"):
        MultiTaskSegmenter(InstanceSegmentation(), features=FEATURES).fit(
            X, np.zeros((N, *SIZE), int)
        )


def test_the_table_names_every_group():
    model = MultiTaskSegmenter(TASKS, features=FEATURES, max_pixels_per_image=5)
    table = task_table(model, X, Targets(COLUMNS))
    assert table.task_names[:2] == ["instances[0]", "instances[1]"]
    assert len(table.task_names) == len(table.columns)
    assert table.y.shape[1] == sum(g.n_columns for g in table.columns)


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        (
            "boxes",
            {"boxes": [[0, 0, 99, 9]], "labels": [1]},
            "image 1: box 0 .* beyond",
        ),
        (
            "boxes",
            {"boxes": [[5, 5, 1, 9]], "labels": [1]},
            "image 1: box 0 has no area",
        ),
        (
            "boxes",
            {"boxes": [[1, 1, 5, np.nan]], "labels": [1]},
            "image 1: .*not finite",
        ),
        ("instances", np.zeros((3, 3), int), r"image 1: .*\(3, 3\)"),
        ("instances", np.full(SIZE, -5), "image 1: ids must be >= 0"),
        (
            "instances",
            [np.zeros(SIZE, bool), np.zeros((3, 3), bool)],
            "differ in shape",
        ),
        ("density", np.array([[1, 1000]]), "image 1: point 0"),
        ("normals", np.ones((*SIZE, 3)), "image 1: normals must be unit"),
        ("depth", np.zeros(SIZE), "image 1: .*above 0"),
        ("count", -3, "image 1: .*>= 0"),
    ],
)
def test_bad_entries_are_named(name, entry, message):
    entries = [COLUMNS[name][i] if i != 1 else entry for i in range(N)]
    with pytest.raises(TargetError, match=f"task '{name}', {message}|{message}"):
        fitted(None, (name,), {name: entries})


def test_labels_unknown_at_fit_are_refused_and_at_score_are_missed():
    model = fitted(None, ("boxes",))
    strange = [{"boxes": [[1, 1, 9, 9]], "labels": [77]}]
    with pytest.warns(UserWarning, match=r"labels \[77\] are not among the classes"):
        assert model.score(X[:1], {"boxes": strange}) == 0
    with pytest.raises(TargetError, match=r"entry 0|image 0.*labels \[77\]"):
        MultiTaskSegmenter({"boxes": Detection(classes=[1])}, features=FEATURES).fit(
            X[:1], {"boxes": strange}
        )
    with pytest.raises(ValueError, match="`metrics` of MultiTaskSegmenter"):
        model.score_tasks(X[:1], Targets(boxes=Y["boxes"])[:1], metrics="box_ap")
    with pytest.raises(ValueError, match="needs whole maps"):
        model.score_tasks(X[:1], Targets(boxes=Y["boxes"])[:1], max_pixels_per_image=10)
