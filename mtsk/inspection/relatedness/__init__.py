"""Which tasks are related: a table in, a task × task matrix with intervals out."""

from mtsk.inspection.relatedness.estimator import TaskRelatedness

__all__ = ["TaskRelatedness"]
