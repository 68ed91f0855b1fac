"""The README's Python blocks run, one after another."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = README.read_text("utf-8")
    assert "make_digit_scenes(30)" in text
    text = text.replace("make_digit_scenes(30)", "make_digit_scenes(16)")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn's heads on tiny data
        for block in blocks:
            exec(block, names)
    assert set(names["search"].best_params_) == {"head__alpha", "max_pixels_per_image"}
