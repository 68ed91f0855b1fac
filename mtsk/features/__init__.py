"""Features of a pretrained network: computed once, kept as maps, read in many ways."""

from mtsk.features.cache import MemoryCache
from mtsk.features.deep_features import DeepFeatures
from mtsk.features.feature_maps import FeatureMaps
from mtsk.features.forward_pass import ForwardPass

__all__ = ["DeepFeatures", "FeatureMaps", "ForwardPass", "MemoryCache"]
