"""Comparison of joint training with training each task alone."""

from mtsk.inspection.sharing.compare import compare_sharing
from mtsk.inspection.sharing.report import SharingReport

__all__ = ["SharingReport", "compare_sharing"]
