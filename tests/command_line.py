"""What tests of the command line share."""

import json

from mtsk.testing import toy_images

X, MASKS = toy_images(6, (32, 40))
QUICK = ["--scales", "0.5", "--head", "ridge"]


def answer(capsys):
    return json.loads(capsys.readouterr().out)
