"""A folder of images, labels and a model, as the command line made it."""

import csv

import numpy as np
import pytest
from command_line import MASKS, QUICK, X
from skimage.io import imsave

from mtsk.cli import main


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
