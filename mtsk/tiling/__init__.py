"""Images larger than memory, predicted tile by tile."""

from mtsk.tiling.tiled_prediction import predict_tiled

__all__ = ["predict_tiled"]
