"""Progress is told on stderr where it is no terminal, too, a line at a time."""

import sys

import numpy as np

from mtsk import DeepFeatures, MultiTaskSegmenter
from mtsk._progress import progress_bar


class Terminal:
    def __init__(self, stream):
        self.stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self.stream, name)


def test_lines_where_there_is_no_terminal(capsys):
    for _ in progress_bar(range(500), desc="fits"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("fits: 0 of 500")
    assert lines[-1].startswith("fits: 500 of 500 [")
    assert len(lines) == 2
    with progress_bar(total=3, desc="head", disable=True) as bar:
        bar.update()
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal(sys.stderr))
    for _ in progress_bar(range(3), desc="fits"):
        pass
    assert "100%" in capsys.readouterr().err


def test_a_verbose_fit_says_what_it_does(capsys):
    images = np.random.default_rng(0).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    masks = (images > 100).astype(int)
    model = MultiTaskSegmenter(features=DeepFeatures(scales=(0.5,)), verbose=1)
    model.fit(images, masks)
    said = capsys.readouterr().err
    assert "features: 3 of 3" in said
    assert "head: " in said
