"""Model files that were damaged or forged: refused, or loaded as something harmless.

Bits are flipped, files cut short, bytes put in; and all of that again by somebody who
knows how: under a right seal, bits flipped in the arrays and texts of the archives
inside, whose own checksums are right too. What loads is asked to predict. Cases run in
a process of their own, so that a crash of compiled code is seen and counted.

python benchmarks/damage.py
"""

from __future__ import annotations

import hashlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from common import options, report_machine, row
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

import mtsk
from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter
from mtsk.crf import SuperpixelCRF
from mtsk.exceptions import MtskError
from mtsk.testing import toy_images

X, MASKS = toy_images(4, (32, 40))
HEADS = {
    "ridge": JointRidge(alpha=1e-2, calibrate=False),
    "forest": RandomForestClassifier(3, max_depth=3, random_state=0),
    "boosting": HistGradientBoostingClassifier(max_iter=3, random_state=0),
    "machine": SVC(),
    "neighbours": KNeighborsClassifier(3, algorithm="brute"),
}
SEAL = 80  # bytes at the end of a file
DAMAGES = ("flip", "cut", "put in")
CHUNK = 400


def main() -> None:
    chosen = options(
        __doc__ or "",
        cases={"type": int, "default": 5000},
        worker={"type": int, "nargs": 2, "default": None},
        folder={"type": Path, "default": None},
    )
    if chosen.worker:
        work(chosen.folder, *chosen.worker)
        return
    report_machine()
    outcomes: Counter[str] = Counter()
    slowest = largest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        save_models(Path(folder))
        for start in range(0, chosen.cases, CHUNK):
            ends = str(start), str(min(start + CHUNK, chosen.cases))
            run = subprocess.run(
                [sys.executable, __file__, "--folder", folder, "--worker", *ends],
                capture_output=True,
                text=True,
            )
            told = [json.loads(line) for line in run.stdout.splitlines()]
            outcomes.update(name for name, _, _ in told)
            slowest = max([slowest, *(seconds for _, seconds, _ in told)])
            largest = max([largest, *(megabytes for _, _, megabytes in told)])
            if run.returncode:
                outcomes["crashed"] += 1
                print("crash after case", start + len(told), run.stderr[-300:])
    print(dict(outcomes))
    bad = outcomes["crashed"] + outcomes["other error"]
    row(
        "damaged and forged files; crashed or ran",
        f"{chosen.cases}; {bad}",
        ">= 5000; 0",
    )
    row("slowest of them, s", f"{slowest:.2f}", "<= 2")
    row("most memory that one took, MB", f"{largest:.0f}", "<= 500")


def save_models(folder: Path) -> None:
    """Save a model with every head, and one with structure."""
    for name, head in HEADS.items():
        model = MultiTaskSegmenter(
            features=DeepFeatures(scales=(0.5,), n_components=1),
            head=head,
            structure=SuperpixelCRF(strength=1.0) if name == "ridge" else None,
            random_state=0,
            max_pixels_per_image=40,
        )
        mtsk.save(model.fit(X, MASKS), folder / name)


def work(folder: Path, start: int, stop: int) -> None:
    """Try some cases; print what became of each."""
    warnings.simplefilter("ignore")
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    with tempfile.TemporaryDirectory() as own:
        path = Path(own) / "model"
        for case in range(start, stop):
            number = case // len(files)
            path.write_bytes(damaged(files[case % len(files)], case, number))
            if case == start:
                outcome(path)  # imports and the network are paid for once
            before, begun = peak_megabytes(), time.perf_counter()
            found = outcome(path)
            cost = time.perf_counter() - begun, peak_megabytes() - before
            print(json.dumps([found, *cost]), flush=True)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def damaged(data: bytes, case: int, number: int) -> bytes:
    random = np.random.default_rng(case)
    kind, forged = DAMAGES[number % 3], number // 3 % 2
    body = data[:-SEAL] if forged else data
    place = int(random.integers(len(body)))
    if kind == "flip" and forged:
        return rebuilt(data, random)
    if kind == "flip":
        flipped = bytes([body[place] ^ 1 << int(random.integers(8))])
        body = body[:place] + flipped + body[place + 1 :]
    elif kind == "cut":
        body = body[:place]
    else:
        body = body[:place] + random.bytes(int(random.integers(1, 40))) + body[place:]
    if not forged:
        return body
    return body + b"mtsk model 0001 " + hashlib.sha256(body).hexdigest().encode()


def rebuilt(data: bytes, random: np.random.Generator) -> bytes:
    """Return a file with a few bits of its model flipped, and all else right."""
    with zipfile.ZipFile(io.BytesIO(data)) as outer:
        content = {name: outer.read(name) for name in outer.namelist()}
    with zipfile.ZipFile(io.BytesIO(content["model.skops"])) as inner:
        members = {name: inner.read(name) for name in inner.namelist()}
    name = list(members)[int(random.integers(len(members)))]
    changed = bytearray(members[name])
    for place in random.integers(len(changed), size=int(random.integers(1, 4))):
        changed[place] ^= 1 << int(random.integers(8))
    members[name] = bytes(changed)
    content["model.skops"] = archive_of(members)
    body = archive_of(content, b" " * SEAL)[:-SEAL]
    return body + b"mtsk model 0001 " + hashlib.sha256(body).hexdigest().encode()


def archive_of(members: dict[str, bytes], comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, value in members.items():
            archive.writestr(name, value)
        archive.comment = comment
    return buffer.getvalue()


def outcome(path: Path) -> str:
    try:
        model = mtsk.load(path)
    except MtskError as error:
        return "refused" if path.name in str(error) else "refused without its name"
    except Exception as error:
        print(type(error), error, file=sys.stderr)
        return "other error"
    try:
        model.predict(X[:1])
    except Exception:
        return "loaded, of no use"
    return "loaded, harmless"


if __name__ == "__main__":
    main()
