"""What `compare_sharing` refuses, and how it says so."""

import numpy as np
import pytest
from test_sharing import ABC, IMAGES, Fake, compare

from mtsk import JointRidge, Targets, compare_sharing
from mtsk.exceptions import ImageError, TargetError, UnknownTaskError

LATE = Targets(a=range(12), b=[0] + [None] * 11, c=range(12))


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"Y": Targets(a=range(12))}, TargetError, r"at least 2 tasks, Y has \['a'\]"),
        ({"Y": range(12)}, TargetError, r"at least 2 tasks"),
        ({"Y": None}, TargetError, "Y is None"),
        ({"X": IMAGES[:5]}, TargetError, "5 images but Y has targets for 12"),
        ({"n_repeats": 1}, ValueError, "`n_repeats` of compare_sharing must be an int"),
        ({"n_repeats": 2.5}, ValueError, "`n_repeats`"),
        ({"confidence": 95}, ValueError, r"`confidence`.*\(0, 1\), got 95"),
        ({"confidence": 0.0}, ValueError, "`confidence`"),
        ({"budgets": []}, ValueError, "`budgets`"),
        ({"budgets": 5}, ValueError, "`budgets`.*sequence.*got 5"),
        ({"budgets": "all"}, ValueError, "`budgets`"),
        ({"budgets": [0]}, ValueError, "`budgets`.*ints > 0"),
        ({"budgets": [True]}, ValueError, "`budgets`"),
        ({"budgets": [3, 3]}, ValueError, "different"),
        ({"budgets": [9]}, TargetError, "budget 9: task 'a' is labelled on 8 of the 8"),
        ({"metrics": "mae"}, ValueError, "`metrics`"),
        ({"metrics": {"z": "mae"}}, UnknownTaskError, "`metrics` names 'z'"),
        ({"metrics": {"a": "best"}}, ValueError, "no metric 'best'"),
        ({"X_test": IMAGES}, ValueError, "X_test and Y_test together"),
        ({"Y_test": ABC}, ValueError, "X_test and Y_test together"),
        ({"X_test": IMAGES, "Y_test": ABC, "cv": 3}, ValueError, "not both"),
        (
            {"X_test": IMAGES, "Y_test": ABC.subset(["a", "b"])},
            TargetError,
            "Y_test lacks task 'c'",
        ),
        (
            {
                "X_test": IMAGES,
                "Y_test": Targets(a=[None] * 12, b=ABC["b"], c=ABC["c"]),
            },
            TargetError,
            "'a' is labelled on no image of Y_test",
        ),
        ({"Y": LATE}, TargetError, "'b' is labelled on no image of the test part of f"),
        (
            {"Y": LATE, "cv": [(IMAGES[1:], IMAGES[:1])] * 2},
            TargetError,
            "'b' is labelled on 0 of the 11 images to learn from in repeat 0",
        ),
        ({"cv": [(IMAGES[:6], IMAGES[6:])]}, ValueError, "`cv`.*at least 2 folds"),
        ({"groups": [1, 2]}, ValueError, r"groups has shape \(2,\), X has 12 images"),
        ({"cv": 50}, ValueError, "`cv` of .* must be from 2 to 12, .* images, got 50"),
        ({"cv": 1}, ValueError, "`cv` of compare_sharing must be from 2"),
        ({"n_repeats": 99}, ValueError, "`n_repeats` .* from 2 to 12, .* of images"),
        ({"groups": [0] * 12}, ValueError, "must name at least 2 groups, got 1"),
        (
            {"groups": [0, 1] * 6},
            ValueError,
            "`n_repeats` .* from 2 to 2, .* of groups",
        ),
        ({"groups": [None, 1] * 6}, ValueError, "name every group, got None or NaN"),
        (
            {"groups": np.array(["a", 1] * 6, object)},
            ValueError,
            "groups must not mix kinds of names",
        ),
        (
            {"cv": [([0], [1]), ([1], [99])]},
            ValueError,
            "`cv` .* of places from 0 to 11",
        ),
        ({"cv": [([-1, 0], [1])] * 2}, ValueError, "`cv` .* of places from 0 to 11"),
        ({"cv": [([0.0, 1.0], [2])] * 2}, ValueError, "`cv` .* of places from 0 to 11"),
        ({"cv": [([], [2])] * 2}, ValueError, "`cv` .* of places from 0 to 11"),
        ({"cv": [([0, 0], [2])] * 2}, ValueError, "`cv` .* of places named once"),
        ({"cv": [([0, 1], [1, 2])] * 2}, ValueError, "`cv` .* test parts without"),
        (
            {"groups": ["a", np.nan] * 6},
            ValueError,
            "name every group, got None or NaN",
        ),
        ({"groups": ["a", 1] * 6}, ValueError, "groups must not mix kinds of names"),
        (
            {"groups": [[1], [1, 2]] * 6},
            ValueError,
            "one name for each of the 12 images",
        ),
        ({"n_jobs": 0}, ValueError, "`n_jobs` of compare_sharing must be an int other"),
        ({"n_jobs": 1.5}, ValueError, "`n_jobs`"),
        ({"X": [], "Y": Targets(a=[], b=[])}, ImageError, "2 images, X holds 0"),
        ({"gives": {("b", "a"): np.nan}}, TargetError, "'a' scored nan by miou in rep"),
    ],
)
def test_bad_input(keywords, error, message):
    with pytest.raises(error, match=message):
        compare(**keywords)


@pytest.mark.parametrize("estimator", [Fake, None, JointRidge(), "logistic"])
def test_an_estimator_that_cannot_be_scored_by_task(estimator):
    with pytest.raises(TypeError, match="needs an estimator with fit and score_tasks"):
        compare_sharing(estimator, IMAGES, ABC)


class Interrupted(Fake):
    """Is interrupted in a fit."""

    at = 0
    fits = 0

    def fit(self, X, Y):
        Interrupted.fits += 1
        if Interrupted.fits == self.at:
            raise KeyboardInterrupt
        return super().fit(X, Y)


def test_an_interrupted_comparison_keeps_complete_repeats(capsys):
    keywords = {"n_repeats": 4, "random_state": 0}
    whole = compare_sharing(Fake(), IMAGES, ABC, **keywords)
    n_fits = 4  # of a repeat: all tasks, and three alone
    Interrupted.fits, Interrupted.at = 0, 2 * n_fits + 2
    with pytest.warns(UserWarning, match="the 2 complete repeats of 4"):
        report = compare_sharing(Interrupted(), IMAGES, ABC, verbose=1, **keywords)
    assert report.n_repeats == 2
    assert {job.repeat for job in report.scores} == {0, 1}
    assert all(report.scores[job] == whole.scores[job] for job in report.scores)
    assert "compare_sharing: 16 fits" in capsys.readouterr().err
    Interrupted.fits, Interrupted.at = 0, 2 * n_fits
    with pytest.raises(KeyboardInterrupt):
        compare_sharing(Interrupted(), IMAGES, ABC, **keywords)
