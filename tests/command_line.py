"""What tests of the command line share: a folder of images, labels and a model."""

import csv
import json

import numpy as np
import pytest
from skimage.io import imsave

from mtsk.cli import main
from mtsk.testing import toy_images

X, MASKS = toy_images(6, (32, 40))
QUICK = ["--scales", "0.5", "--head", "ridge"]


def answer(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Images, maps and a table, in a folder with a space and an é in its name."""
    home = tmp_path_factory.mktemp("meine Bilder é")
    for name in ("photos", "parts", "new photos"):
        (home / name).mkdir()
    for i, (image, mask) in enumerate(zip(X, MASKS, strict=True)):
        imsave(home / "photos" / f"bild {i}.png", image, check_contrast=False)
        imsave(home / "new photos" / f"neu {i}.png", image, check_contrast=False)
        if i < 5:
            part = mask.astype(np.uint8)
            imsave(home / "parts" / f"bild {i}.tif", part, check_contrast=False)
    rows = [
        {
            "image": f"bild {i}.png",
            "kind": "äb"[i % 2],
            "n": i / 2,
            "tags": "a;b" * (i % 2),
        }
        for i in range(6)
    ]
    with open(home / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    train = [str(home / "photos"), str(home / "parts"), str(home / "table.csv")]
    assert main(["train", *train, "-o", str(home / "m.mtsk"), *QUICK, "--json"]) == 0
    return home
