"""compare_sharing: exact gains of a made-up estimator, and real fits of tiny images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from joblib import parallel_config
from scipy.stats import t as student
from sklearn.base import BaseEstimator
from sklearn.model_selection import KFold
from tests_support import Counting

from mtsk import (
    DeepFeatures,
    JointRidge,
    MultiTaskSegmenter,
    SharedLayerNetwork,
    Targets,
    compare_sharing,
)
from mtsk.exceptions import TargetError
from mtsk.features import MemoryCache
from mtsk.heads import JointLogistic
from mtsk.inspection import SharingReport
from mtsk.inspection.sharing.compare import _for_tasks
from mtsk.inspection.sharing.grouping import best_partition
from mtsk.metrics import lower_is_better, metric_names
from mtsk.tasks import Boundary, MultiLabel
from mtsk.testing import toy_images

FITS: list[dict] = []
ABC = Targets(a=range(12), b=range(12), c=range(12))
IMAGES = np.arange(12)


class Fake(BaseEstimator):
    """Scores 0.5 a task, and what each partner in the fit gives it."""

    def __init__(self, gives=None, noise=0.0, metric="miou", random_state=None):
        self.gives = gives
        self.noise = noise
        self.metric = metric
        self.random_state = random_state

    def fit(self, X, Y):
        kinds = {n: SimpleNamespace(metrics=(self.metric,)) for n in Y.task_names}
        if self.metric:
            self.tasks_ = kinds
        self.names_ = Y.task_names
        self.fit_ = {"seed": self.random_state, "X": list(X), "Y": Y}
        FITS.append(self.fit_)
        return self

    def score_tasks(self, X, Y, metrics=None):
        self.fit_ |= {"tested": list(X), "metrics": metrics}
        random = np.random.default_rng([self.random_state, len(self.names_)])
        gives = self.gives or {}
        return {
            n: 0.5
            + sum(gives.get((other, n), 0.0) for other in self.names_)
            + self.noise * random.normal()
            for n in Y.task_names
        }


@pytest.fixture(autouse=True)
def _forget():
    FITS.clear()


def compare(gives=None, Y=ABC, X=IMAGES, noise=0.0, metric="miou", **keywords):
    keywords.setdefault("random_state", 0)
    return compare_sharing(Fake(gives, noise, metric), X, Y, **keywords)


def by_task(report, key, budget=None):
    return {r["task"]: r[key] for r in report.rows if r["budget"] == budget}


# -- gains that are known -----------------------------------------------------


def test_gains_and_verdicts_are_exact():
    report = compare({("b", "a"): 0.1, ("a", "c"): -0.2})
    assert by_task(report, "joint") == pytest.approx({"a": 0.6, "b": 0.5, "c": 0.3})
    assert by_task(report, "separate") == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.5})
    assert by_task(report, "gain") == pytest.approx({"a": 0.2, "b": 0, "c": -0.4})
    assert by_task(report, "lower") == pytest.approx({"a": 0.2, "b": 0, "c": -0.4})
    assert by_task(report, "verdict") == {
        "a": "gains",
        "b": "no difference shown",
        "c": "pays",
    }
    assert by_task(report, "metric") == dict.fromkeys("abc", "miou")
    assert report.delta_m[None]["value"] == pytest.approx(-20 / 3)
    assert report.recommendation[None] == {"together": [["a", "b"]], "alone": ["c"]}


def test_an_error_that_falls_is_a_gain():
    report = compare({("b", "a"): -0.1, ("a", "c"): 0.2}, metric="mae")
    assert by_task(report, "difference") == pytest.approx({"a": 0.1, "b": 0, "c": -0.2})
    assert by_task(report, "gain")["a"] == pytest.approx(0.2)
    assert by_task(report, "verdict")["c"] == "pays"


def test_metrics_are_passed_on_and_tell_the_sign():
    report = compare({("b", "a"): -0.1}, metrics={"a": "rmse"})
    assert by_task(report, "gain")["a"] == pytest.approx(0.2)
    assert by_task(report, "metric") == {"a": "rmse", "b": "miou", "c": "miou"}
    assert {"a": "rmse", "b": None, "c": None} in [f["metrics"] for f in FITS]
    assert compare().metrics["a"] == "miou"
    assert FITS[-1]["metrics"] is None


def test_without_tasks_more_is_better():
    report = compare({("b", "a"): 0.1}, metric=None)
    assert by_task(report, "verdict")["a"] == "gains"
    assert by_task(report, "metric")["a"] is None


def test_rounding_is_no_difference():
    assert set(by_task(compare({("b", "a"): 1e-7}), "difference").values()) == {0.0}
    assert by_task(compare({("b", "a"): 1e-5}), "verdict")["a"] == "gains"


def test_all_tasks_that_pay_are_trained_alone():
    gives = {(i, j): -0.1 for i in "abc" for j in "abc" if i != j}
    report = compare(gives)
    assert report.recommendation[None] == {"together": [], "alone": ["a", "b", "c"]}


@pytest.mark.parametrize("given", [False, True])
def test_intervals_are_students_with_folds_that_overlap(given):
    test = {"X_test": IMAGES, "Y_test": ABC} if given else {}
    report = compare(noise=0.05, n_repeats=4, confidence=0.9, **test)
    each = np.array(
        [
            report.scores[("a", "b", "c"), r, None]["a"]
            - report.scores[("a",), r, None]["a"]
            for r in range(4)
        ]
    )
    share = 1 / 4 + (0 if given else 3 / 9)
    reach = student.ppf(0.95, 3) * each.std(ddof=1) * np.sqrt(share)
    row = report.rows[0]
    assert row["difference"] == pytest.approx(each.mean())
    assert row["difference_lower"] == pytest.approx(each.mean() - reach)
    assert row["difference_upper"] == pytest.approx(each.mean() + reach)
    assert row["lower"] == pytest.approx((each.mean() - reach) / row["separate"])


def test_noise_alone_shows_no_difference():
    verdicts = [
        row["verdict"]
        for seed in range(10)
        for row in compare(noise=0.1, random_state=seed).rows
    ]
    assert verdicts.count("no difference shown") >= 26


def test_delta_m_is_the_mean_of_gains_with_an_interval_of_its_own():
    report = compare({("b", "a"): 0.1}, noise=0.02)
    gains = by_task(report, "gain")
    mean = report.delta_m[None]
    assert mean["value"] == pytest.approx(100 * np.mean(list(gains.values())))
    assert mean["lower"] < mean["value"] < mean["upper"]


def test_a_score_of_0_alone_has_no_relative_gain():
    scores = {(("a", "b"), r, None): {"a": 0.1, "b": 0.4} for r in (0, 1)}
    scores |= {(("a",), r, None): {"a": 0.0} for r in (0, 1)}
    scores |= {(("b",), r, None): {"b": 0.4} for r in (0, 1)}
    report = SharingReport(scores, ["a", "b"], {})
    assert np.isnan(report.rows[0]["gain"])
    assert report.rows[0]["verdict"] == "gains"
    assert np.isnan(report.delta_m[None]["value"])
    assert "nan" in repr(report)


# -- what is fitted to what ---------------------------------------------------


def test_folds_score_every_image_once_and_never_one_that_was_learnt_from():
    compare(n_repeats=4)
    joint = [fit for fit in FITS if len(fit["Y"].task_names) == 3]
    assert len(FITS) == 16
    assert sorted(i for fit in joint for i in fit["tested"]) == list(range(12))
    for fit in FITS:
        assert not set(fit["X"]) & set(fit["tested"])
        assert fit["Y"][fit["Y"].task_names[0]] == fit["X"]  # entries are the indices


def test_joint_and_separate_fits_share_labels_test_part_and_seed():
    compare(budgets=[3], n_repeats=2)
    for repeat in range(2):
        joint, *alone = FITS[4 * repeat : 4 * repeat + 4]
        for fit in alone:
            (name,) = fit["Y"].task_names
            both = {e for e in joint["Y"][name] if e is not None}
            assert set(fit["Y"][name]) == both == set(fit["X"])
            assert len(both) == 3
            assert fit["tested"] == joint["tested"]
            assert fit["seed"] == joint["seed"]
    assert FITS[0]["seed"] != FITS[4]["seed"]


def test_larger_budgets_add_images_and_tasks_keep_their_own():
    compare(budgets=[2, 5, None], X_test=IMAGES, Y_test=ABC, n_repeats=2)
    joint = [f["Y"] for f in FITS if len(f["Y"].task_names) == 3][:3]
    kept = [[{e for e in Y[n] if e is not None} for n in "abc"] for Y in joint]
    assert [len(k[0]) for k in kept] == [2, 5, 12]
    assert all(kept[0][t] < kept[1][t] < kept[2][t] for t in range(3))
    assert kept[1][0] != kept[1][1]


def test_missing_labels_are_never_part_of_a_budget():
    Y = Targets(a=range(12), b=[None] * 6 + list(range(6, 12)))
    compare(Y=Y, budgets=[4, None], X_test=IMAGES, Y_test=Y, n_repeats=2)
    for fit in FITS:
        if fit["Y"].task_names == ["b"]:
            assert set(fit["X"]) <= set(range(6, 12))
            assert None not in fit["Y"]["b"]


def test_groups_and_splitters():
    groups = np.arange(12) // 3
    compare(n_repeats=2, groups=groups)
    compare(cv=4, groups=groups)
    for fit in FITS:
        assert not set(groups[fit["X"]]) & set(groups[fit["tested"]])
    assert len(FITS) == 4 * (2 + 4)
    assert compare(cv=KFold(6)).n_repeats == 6
    parts = [(np.arange(6), np.arange(6, 12)), (np.arange(6, 12), np.arange(6))]
    assert compare(cv=parts).n_repeats == 2


def test_lists_and_lazy_images_are_opened_when_needed():
    opened = []

    class Lazy:
        def __len__(self):
            return 12

        def __getitem__(self, i):
            opened.append(i)
            return int(i)

    one = compare(X=Lazy(), n_repeats=2)
    assert len(opened) == 2 * 4 * 12
    two = compare(X=list(range(12)), n_repeats=2)
    assert one.rows == two.rows
    assert isinstance(FITS[-1]["X"], list)


def test_random_state_repeats_all_of_it():
    one, two, three = (compare(noise=1.0, random_state=s) for s in (3, 3, 4))
    assert one.scores == two.scores
    assert one.scores != three.scores


def test_n_jobs_changes_nothing():
    with parallel_config("threading"):  # processes would take seconds to start
        two = compare(noise=1.0, n_jobs=2)
    assert two.scores == compare(noise=1.0).scores


def test_a_progress_bar_is_shown_when_asked_for(capsys):
    compare(verbose=1)
    assert "fits" in capsys.readouterr().err
    compare()
    assert not capsys.readouterr().err


# -- pairs and groups ---------------------------------------------------------


def test_pairs_find_who_belongs_together():
    gives = {("a", "b"): 0.1, ("b", "a"): 0.05, ("c", "a"): -0.2, ("c", "b"): -0.2}
    report = compare(gives, pairs=True, n_repeats=2)
    assert len(FITS) == 2 * (1 + 3 + 3)
    found = report.pair_gains[None]
    expected = [[0, 0.2, 0], [0.1, 0, 0], [-0.4, -0.4, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert report.recommendation[None] == {"together": [["a", "b"]], "alone": ["c"]}
    assert compare(gives).pair_gains is None


def test_pairs_of_two_tasks_are_the_joint_fit():
    report = compare({("a", "b"): 0.1}, Y=ABC.subset(["a", "b"]), pairs=True)
    assert len(FITS) == 3 * 3
    assert report.pair_gains[None][0, 1] == pytest.approx(0.2)
    assert report.recommendation[None]["together"] == [["a", "b"]]


def test_the_partition_is_the_best_of_all():
    # 0 with 1 and 2 with 3 gain; all together was measured to be worse than hoped.
    pairs = np.full((4, 4), -0.1)
    np.fill_diagonal(pairs, 0)
    pairs[0, 1] = pairs[1, 0] = pairs[2, 3] = pairs[3, 2] = 0.2
    parts = best_partition(pairs, np.zeros(4))
    assert sorted(map(sorted, parts)) == [[0, 1], [2, 3]]
    assert best_partition(pairs, np.ones(4)) == [[0, 1, 2, 3]]


def test_a_group_of_three_gains_the_mean_of_its_pairs():
    pairs = np.zeros((4, 4))
    pairs[:3, :3] = 0.1
    np.fill_diagonal(pairs, 0)
    pairs[3, :3] = -0.3
    parts = best_partition(pairs, np.full(4, -1.0))
    assert sorted(map(sorted, parts)) in ([[0, 1, 2], [3]],)


def test_a_third_task_that_adds_little_is_left_out():
    # Together they gain 0.6 over 3 pairs, which is 0.3 for 3 tasks; 0 and 1 gain 0.4.
    pairs = np.zeros((4, 4))
    pairs[:3, :3] = 0.05
    pairs[0, 1] = pairs[1, 0] = 0.2
    pairs[3, :3] = -0.3
    np.fill_diagonal(pairs, 0)
    parts = best_partition(pairs, np.full(4, -1.0))
    assert sorted(map(sorted, parts)) == [[0, 1], [2], [3]]


def test_many_tasks_are_merged_greedily():
    pairs = np.full((10, 10), -0.1)
    np.fill_diagonal(pairs, 0)
    for a, b, c in ((0, 1, 2), (3, 4, 5)):
        for i, j in ((a, b), (b, c), (a, c)):
            pairs[i, j] = pairs[j, i] = 0.2
    parts = best_partition(pairs, np.full(10, -1.0))
    assert [p for p in parts if len(p) > 1] == [[0, 1, 2], [3, 4, 5]]
    assert sorted(i for part in parts for i in part) == list(range(10))


# -- what it says -------------------------------------------------------------


def test_text_html_and_frame():
    report = compare({("b", "a"): 0.1, ("a", "c"): -0.2}, budgets=[2, None])
    text = repr(report)
    assert "Sharing, 3 repeats, 95 % intervals" in text
    assert "2 labelled images a task: Δm -6.7 % [-6.7, -6.7]" in text
    assert "train together: a, b; alone: c" in text
    assert "no difference shown, one fit will do: a, b, c" in repr(compare())
    assert "+20.0  [+20.0, +20.0]  gains" in text
    shown = report._repr_html_()
    assert shown.count("<table>") == shown.count("</table>") == 2
    assert shown.count("<tr>") == 2 * 4
    frame = report.to_frame()
    assert frame.shape == (6, 12)
    assert frame["verdict"].tolist().count("pays") == 2


def test_html_is_escaped():
    Y = Targets({"<b>": range(12), "x": range(12)})
    assert "&lt;b&gt;" in compare(Y=Y)._repr_html_()


def test_lower_is_better():
    errors = "rmse mae abs_rel silog angular_error count_mae count_rmse rank_mae"
    assert {n for n in metric_names() if lower_is_better(n)} == {*errors.split()}
    with pytest.raises(ValueError, match="no metric 'best'; the metrics are"):
        lower_is_better("best")


# -- real fits ----------------------------------------------------------------


def tiny(head=None, tasks=None, features=None):
    features = features or DeepFeatures(
        Counting(), scales=[1], cache=MemoryCache(2**26)
    )
    return MultiTaskSegmenter(
        tasks, features=features, head=head, max_pixels_per_image=40
    )


def test_tasks_that_share_nothing_gain_nothing_and_images_are_read_once():
    X, labels = toy_images(8)
    Y = Targets(semantic=list(labels), disc=list(labels == 7), depth=list(labels / 7))
    network = Counting()
    cache = MemoryCache(2**26)
    model = tiny(
        JointRidge(0.1, calibrate=False),
        features=DeepFeatures(network, scales=[1], cache=cache),
    )
    report = compare_sharing(model, X, Y, n_repeats=2, random_state=0, budgets=[3])
    assert network.images == 8
    assert by_task(report, "metric", 3)["depth"] == "r2"
    for row in report.rows:
        assert abs(row["difference"]) < 1e-3, row


def test_named_tasks_survive_being_alone():
    X, labels = toy_images(6)
    Y = Targets(semantic=list(labels), edges=list(labels), tags=[{7}] * 6)
    tasks = {"edges": Boundary(), "tags": MultiLabel(of="semantic")}
    model = tiny(JointRidge(0.1, calibrate=False), tasks)
    report = compare_sharing(model, X, Y, n_repeats=2, random_state=0, pairs=True)
    assert np.isfinite([row["joint"] for row in report.rows]).all()
    assert tasks["tags"].of == "semantic"


def test_weights_of_named_tasks_survive_being_alone():
    X, labels = toy_images(4)
    Y = Targets(semantic=list(labels), disc=list(labels == 7))
    head = SharedLayerNetwork((8,), n_epochs=1, task_weights={"semantic": 2.0})
    report = compare_sharing(tiny(head), X, Y, n_repeats=2, random_state=0)
    assert np.isfinite([row["joint"] for row in report.rows]).all()


def test_what_a_clone_says_of_other_tasks_is_left_out():
    tasks = {"edges": Boundary(), "tags": MultiLabel(of="semantic")}
    alone = _for_tasks(tiny({"edges": JointLogistic()}, tasks), ("tags",), 5)
    assert list(alone.tasks) == ["tags"]
    assert alone.tasks["tags"].of is None
    assert alone.head == {}
    assert alone.random_state == 5
    both = _for_tasks(tiny(tasks=tasks), ("semantic", "tags"), 5)
    assert both.tasks["tags"].of == "semantic"
    head = SharedLayerNetwork(task_weights={"edges": 2.0})
    assert _for_tasks(tiny(head), ("tags",), 5).head.task_weights == "equal"
    assert _for_tasks(tiny(head), ("edges",), 5).head.task_weights == {"edges": 2.0}


def test_without_pandas(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match="to_frame needs pandas"):
        compare().to_frame()


def test_tasks_that_share_nothing_are_told_at_once():
    X, Y = toy_images(6)
    targets = Targets(labels=Y, kind=["a", "b"] * 3)
    for head in (None, "network", "ridge"):
        model = MultiTaskSegmenter(head=head)
        with pytest.raises(TargetError, match=r"\['labels', 'kind'\] share nothing"):
            compare_sharing(model, X, targets)
    with pytest.raises(TargetError, match="labelled on no image"):
        compare_sharing(MultiTaskSegmenter(), X, Targets(a=Y, b=[None] * 6))
