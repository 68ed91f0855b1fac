"""The README's Python blocks run, one after another."""

from __future__ import annotations

import re
import warnings
from functools import partial
from pathlib import Path

from mtsk import datasets

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Scenes of a third of the pixels: the lines are what is tested, and take minutes.
    small = partial(datasets.make_digit_scenes, size=(80, 96), digit_size=(24, 48))
    monkeypatch.setattr(datasets, "make_digit_scenes", small)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn's heads on tiny data
        for block in blocks:
            exec(block, names)
    assert set(names["search"].best_params_) == {"head__alpha", "n_pixels"}
