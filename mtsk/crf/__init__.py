"""Conditional random fields: graphs, energy, inference, learning."""

from mtsk.crf.estimator import SuperpixelCRF
from mtsk.crf.factor_graph import FactorGraph, Link, energy
from mtsk.crf.inference import (
    alpha_expansion,
    icm,
    is_metric,
    mean_field,
    metric_closure,
)
from mtsk.crf.regions import RegionGraph

__all__ = [
    "FactorGraph",
    "Link",
    "RegionGraph",
    "SuperpixelCRF",
    "alpha_expansion",
    "energy",
    "icm",
    "is_metric",
    "mean_field",
    "metric_closure",
]
