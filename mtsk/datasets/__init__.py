"""Data to try things on, made from what scikit-learn and scikit-image ship."""

from mtsk.datasets.digit_scenes import make_digit_scenes

__all__ = ["make_digit_scenes"]
