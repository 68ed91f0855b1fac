"""Did sharing help? Every task trained with the others, and alone."""

from mtsk.sharing.compare import compare_sharing
from mtsk.sharing.report import SharingReport

__all__ = ["SharingReport", "compare_sharing"]
