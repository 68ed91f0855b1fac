"""Heads: estimators over tables of features and tables of targets."""

from mtsk.heads.base import JointHead, JointLinear
from mtsk.heads.logistic import JointLogistic
from mtsk.heads.network import SharedLayerNetwork
from mtsk.heads.per_task import PerTaskHead
from mtsk.heads.related import RelatedRidge
from mtsk.heads.ridge import JointRidge
from mtsk.heads.split import SplitHead
from mtsk.heads.statistics import Moments
from mtsk.heads.weighting import TaskWeighting

__all__ = [
    "JointHead",
    "JointLinear",
    "JointLogistic",
    "JointRidge",
    "Moments",
    "PerTaskHead",
    "RelatedRidge",
    "SharedLayerNetwork",
    "SplitHead",
    "TaskWeighting",
]
