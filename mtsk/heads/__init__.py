"""Heads: estimators over tables of features and tables of targets."""

from mtsk.heads.base import JointLinear
from mtsk.heads.logistic import JointLogistic
from mtsk.heads.per_task import PerTaskHead
from mtsk.heads.ridge import JointRidge
from mtsk.heads.statistics import Moments

__all__ = ["JointLinear", "JointLogistic", "JointRidge", "Moments", "PerTaskHead"]
