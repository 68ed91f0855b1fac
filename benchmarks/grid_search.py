"""GridSearchCV, 10 candidates of the head x 3 folds, over one fit; cache on.

MSRC-21. The cache is empty before each of the two, so both pass every image through
the network; the grid does so once, not 31 times. Candidates are compared at 500 pixels
of each image of their fold; --every-pixel scores all. Beside it, what `JointRidge` does
by itself: the same 10 candidates x 3 folds from the sums of one pass.
"""

from __future__ import annotations

import numpy as np
from common import clock, load_masks, options, report_machine, row, semantic
from sklearn.model_selection import GridSearchCV

from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter, make_task_scorer
from mtsk.features import MemoryCache


def main() -> None:
    chosen = options(
        __doc__ or "",
        images={"type": int, "default": 276},
        every_pixel={"action": "store_true"},
        head={"choices": ["logistic", "ridge"], "default": "logistic"},
    )
    report_machine()
    X, Y = load_masks(chosen.data, "msrc21", "train")
    X, Y = X[: chosen.images], Y[: chosen.images]
    times: dict[str, float] = {}

    def model(head=chosen.head) -> MultiTaskSegmenter:
        features = DeepFeatures(cache=MemoryCache())
        return MultiTaskSegmenter(
            semantic("msrc21"), features=features, head=head, random_state=0
        )

    model().fit(X[:4], Y[:4])  # warms up
    with clock(times, "one fit"):
        model().fit(X, Y)
    grid = {"head__alpha": np.logspace(-4, 0, 10).tolist()}
    scoring = None if chosen.every_pixel else make_task_scorer(max_pixels_per_image=500)
    search = GridSearchCV(model(), grid, scoring=scoring, cv=3)
    with clock(times, "grid search"):
        search.fit(X, Y)
    print({k: round(v, 1) for k, v in times.items()})
    found = zip(grid["head__alpha"], search.cv_results_["mean_test_score"], strict=True)
    print("alpha: mIoU", {f"{a:.2g}": round(s, 4) for a, s in found})
    ratio = times["grid search"] / times["one fit"]
    row(f"grid search ÷ one fit, {chosen.head} head", f"{ratio:.2f}", "<= 2.5")
    with clock(times, "one ridge"):
        model(JointRidge(alpha=0.01, n_folds=3)).fit(X, Y)
    with clock(times, "ten ridges"):
        model(JointRidge(alpha=grid["head__alpha"], n_folds=3)).fit(X, Y)
    ratio = times["ten ridges"] / times["one ridge"]
    row("JointRidge(alpha=10 values) ÷ one value, 3 folds", f"{ratio:.2f}", "<= 2.5")


if __name__ == "__main__":
    main()
