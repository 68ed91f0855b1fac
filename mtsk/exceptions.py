"""The errors and warnings that mtsk raises.

Each derives from the built-in error a caller would expect, so that code which
catches ``ValueError`` keeps working.
"""

__all__ = [
    "BackboneError",
    "CheckpointError",
    "ExportError",
    "ImageError",
    "ModelFileError",
    "MtskError",
    "SkippedImageWarning",
    "TargetError",
    "TilingError",
    "UnknownTaskError",
    "WeightsError",
]


class MtskError(Exception):
    """Base class of every error that mtsk raises on purpose."""


class ImageError(MtskError, ValueError):
    """An image cannot be used; the message names its index (or its file)."""


class TargetError(MtskError, ValueError):
    """A target does not fit its image or its task; the message names both.

    Parameters
    ----------
    reason : str
        What is wrong, and the remedy.
    task : str, default=None
        Name of the task. None where it is not known, or all are meant.
    image : int, default=None
        Index of the image; without a task, of the entry among those that were given.

    Attributes
    ----------
    reason, task, image
        As given.
    """

    def __init__(
        self, reason: str = "", task: str | None = None, image: int | None = None
    ) -> None:
        super().__init__(reason, task, image)  # what pickle makes it of again
        self.reason, self.task, self.image = reason, task, image

    def __str__(self) -> str:
        if self.task is None and self.image is None:
            return self.reason
        if self.task is None:
            return f"entry {self.image}: {self.reason}"
        image = "" if self.image is None else f", image {self.image}"
        return f"task {self.task!r}{image}: {self.reason}"

    def at(self, task: str | None = None, image: int | None = None) -> "TargetError":
        """Return the same error of a task and an image, as far as it names none.

        Parameters
        ----------
        task : str, default=None
        image : int, default=None

        Returns
        -------
        TargetError
        """
        return TargetError(
            self.reason,
            task if self.task is None else self.task,
            image if self.image is None else self.image,
        )


class CheckpointError(MtskError, ValueError):
    """A checkpoint is of another fit, or cannot be read or written."""


class ExportError(MtskError, ValueError):
    """A model cannot be written as a graph for other programs."""


class ModelFileError(MtskError, ValueError):
    """A model's file is damaged, not to be trusted, or cannot be read or written."""


class TilingError(MtskError, ValueError):
    """An image cannot be predicted in tiles as asked; the message has the remedy."""


class UnknownTaskError(MtskError, KeyError):
    """A task name that the estimator or the targets do not have."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0]) if self.args else ""


class BackboneError(MtskError, ValueError):
    """A backbone cannot be built or tapped as asked."""


class WeightsError(MtskError, OSError):
    """Weights are missing, cannot be fetched, or are not the ones expected."""


class SkippedImageWarning(UserWarning):
    """Images were left out because they could not be read (``on_error="skip"``)."""
