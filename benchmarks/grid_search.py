"""GridSearchCV, 10 candidates of the head x 3 folds, over one fit; cache on.

MSRC-21. The cache is empty before each of the two, so both pass every image through
the network; the grid does so once, not 31 times.
"""

from __future__ import annotations

import numpy as np
from common import clock, load_masks, options, report_machine, row, semantic
from sklearn.model_selection import GridSearchCV

from mtsk import DeepFeatures, MemoryCache, MultiTaskSegmenter


def main() -> None:
    chosen = options(
        __doc__ or "",
        images={"type": int, "default": 276},
        head={"choices": ["logistic", "ridge"], "default": "logistic"},
    )
    report_machine()
    X, Y = load_masks(chosen.data, "msrc21", "train")
    X, Y = X[: chosen.images], Y[: chosen.images]
    times: dict[str, float] = {}

    def model() -> MultiTaskSegmenter:
        return MultiTaskSegmenter(
            semantic("msrc21"),
            features=DeepFeatures(cache=MemoryCache()),
            head=chosen.head,
            random_state=0,
        )

    model().fit(X[:4], Y[:4])  # warms up
    with clock(times, "one fit"):
        model().fit(X, Y)
    grid = {"head__alpha": np.logspace(-4, 0, 10).tolist()}
    search = GridSearchCV(model(), grid, cv=3)
    with clock(times, "grid search"):
        search.fit(X, Y)
    print({k: round(v, 1) for k, v in times.items()})
    found = zip(grid["head__alpha"], search.cv_results_["mean_test_score"], strict=True)
    print("alpha: mIoU", {f"{a:.2g}": round(s, 4) for a, s in found})
    ratio = times["grid search"] / times["one fit"]
    row(f"grid search ÷ one fit, {chosen.head} head", f"{ratio:.2f}", "<= 2.5")


if __name__ == "__main__":
    main()
