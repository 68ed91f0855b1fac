"""Task relatedness: a task × task matrix with intervals, from a table."""

from mtsk.inspection.relatedness.estimator import TaskRelatedness

__all__ = ["TaskRelatedness"]
