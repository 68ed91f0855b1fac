"""Conditional random fields: graphs, energy, inference, learning."""

from mtsk.crf.coupling import Coupling, coupled_messages, fit_coupling
from mtsk.crf.estimator import SuperpixelCRF
from mtsk.crf.factor_graph import FactorGraph, Link, energy
from mtsk.crf.grid import PixelCRF
from mtsk.crf.inference import mean_field
from mtsk.crf.regions import RegionGraph

__all__ = [
    "Coupling",
    "FactorGraph",
    "Link",
    "PixelCRF",
    "RegionGraph",
    "SuperpixelCRF",
    "coupled_messages",
    "energy",
    "fit_coupling",
    "mean_field",
]
