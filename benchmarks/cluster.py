"""Statistics of CamVid images on a dask cluster: two workers against one, a core each.

Workers are processes of one thread. ``rows``: they send the rows of the table;
``sums``: the sums of a ridge without class weights. What two cores of this machine can
do at most is told by two processes that know nothing of one another and read half of
the images each. dask does not watch its workers here (`UNWATCHED`), as it does unless
told otherwise: that took 8 % of their time; ``--watched`` lets it. The client fetches
from the workers themselves, and not by way of the scheduler.

python benchmarks/cluster.py
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import dask
import joblib
import numpy as np
import torch
from common import load_masks, options, report_machine, row, semantic
from distributed import Client, LocalCluster
from threadpoolctl import threadpool_limits

from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter
from mtsk.segmenter.fitting import fit, read_tables
from mtsk.segmenter.head_factory import HeadFitter

UNWATCHED = {  # 100 samples of a worker's stack a second, and 50 ticks of its clock
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
}
SUMS = JointRidge(alpha=1e-3, calibrate=False, class_weight=None)


def main() -> None:
    chosen = options(
        __doc__ or "",
        images={"type": int, "default": 200},
        repeats={"type": int, "default": 1},
        watched={"action": "store_true"},
    )
    if not chosen.watched:
        dask.config.set(UNWATCHED)
    report_machine()
    X, Y = load_masks(chosen.data, "camvid", "train")
    X, Y = X[: chosen.images], Y[: chosen.images]
    for kind, head in (("rows", "logistic"), ("sums", SUMS)):
        ratios, most, heads = [], [], {}
        for _ in range(chosen.repeats):
            seconds = {}
            for n in (1, 2):
                seconds[n], heads[n] = reading_time(X, Y, n, head)
            ratios.append(seconds[1] / seconds[2])
            seconds["apart"] = time_apart(X, Y, head)
            most.append(seconds[1] / seconds["apart"])
            print(kind, {n: round(s, 1) for n, s in seconds.items()}, flush=True)
        one, two = (head.coef_ for head in heads.values())
        row(f"{kind}: 1 worker ÷ 2 workers", f"{np.median(ratios):.2f}", ">= 1.8")
        row(f"{kind}: 1 worker ÷ 2 processes apart", f"{np.median(most):.2f}", "-")
        error = np.abs(one - two).max() / np.abs(one).max()
        row(f"{kind}: greatest difference of coefficients", f"{error:.1e}", "<= 1e-6")


def reading_time(X, Y, n_workers, head):  # type: ignore[no-untyped-def]
    """Return the seconds until all statistics are there, and the fitted head."""
    model = MultiTaskSegmenter(
        semantic("camvid"), features=DeepFeatures(), head=head, random_state=0
    )
    settings, images, targets = model.prepare_fit(X, Y)
    with workers(n_workers):
        start = time.perf_counter()
        if settings.learns_from_sums:
            result = fit(settings, images, targets, np.ones(len(X)))
            return time.perf_counter() - start, result.predictor.heads["pixel"]
        table = read_tables(settings, images, targets)["pixel"]
        seconds = time.perf_counter() - start
    weight = np.ones(len(X))
    fit_head = HeadFitter(settings.heads, settings.tasks, settings.features, weight)
    return seconds, fit_head("pixel", table)


def time_apart(X, Y, head) -> float:  # type: ignore[no-untyped-def]
    """Return the seconds until two processes have read half of the images each."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        halves = [(X[i::2], Y[i::2], 1, head) for i in range(2)]
        running = [pool.submit(reading_time, *half) for half in halves]
        return max(future.result()[0] for future in running)


@contextmanager
def workers(n: int) -> Iterator[None]:
    """Have joblib's work done by so many processes of one core each.

    joblib does the work of a single worker in the process that asks, which here gets
    one core.
    """
    if n == 1:
        warm_up()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with threadpool_limits(1):
            yield
        torch.set_num_threads(threads)
        return
    with (
        LocalCluster(
            n_workers=n,
            threads_per_worker=1,
            dashboard_address=None,
            memory_limit=0,
        ) as cluster,
        Client(cluster, direct_to_workers=True) as client,
        joblib.parallel_config("dask"),
    ):
        client.wait_for_workers(n)
        client.run(warm_up)
        yield


def warm_up() -> None:
    """Load the network before the clock runs, as in a cluster that is up."""
    DeepFeatures().fit_transform(np.zeros((1, 64, 64, 3), np.uint8))


if __name__ == "__main__":
    main()
