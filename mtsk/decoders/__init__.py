"""Decoders: convolutions over features, shared by all tasks."""

from mtsk.decoders.course import Lessons
from mtsk.decoders.decoder import SharedDecoder

__all__ = ["Lessons", "SharedDecoder"]
