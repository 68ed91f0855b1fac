"""Nested parameters of parts that were left to their defaults.

scikit-learn reaches into parts that are estimators (``head__alpha``). Here a part may
also be None or a name, which stands for an estimator made when it is needed, and tasks
lie in a mapping; GridSearchCV should reach those as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

from sklearn.base import BaseEstimator

from mtsk.crf import PixelCRF, SuperpixelCRF
from mtsk.decoders import SharedDecoder
from mtsk.features import DeepFeatures
from mtsk.heads import JointLogistic, JointRidge, SharedLayerNetwork
from mtsk.structure import Structure
from mtsk.targets import DEFAULT_TASK
from mtsk.tasks import Task

__all__ = ["HEADS", "NestedDefaults"]

HEADS: dict[str, Callable[[], BaseEstimator]] = {
    "logistic": JointLogistic,
    "ridge": JointRidge,
    "network": SharedLayerNetwork,
    "fcn": SharedDecoder,
    "unet": partial(SharedDecoder, "unet"),
}
"""The heads that have names."""


class NestedDefaults(BaseEstimator):
    """``get_params`` and ``set_params`` that see through defaults and mappings."""

    tasks: Task | Mapping[str, Task] | None
    features: DeepFeatures | None
    head: Any
    structure: Any

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with ``deep`` also those of default parts.

        Parameters
        ----------
        deep : bool, default=True

        Returns
        -------
        dict
        """
        params = super().get_params(deep=deep)
        if deep:
            for name, part in self.default_parts().items():
                nested = part.get_params()
                params |= {f"{name}__{key}": value for key, value in nested.items()}
            for task, codec in self._named_tasks().items():
                nested = codec.get_params()
                params |= {f"tasks__{task}__{k}": v for k, v in nested.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``head__alpha`` and the like also of default parts.

        Parameters
        ----------
        **params : object

        Returns
        -------
        self
        """
        direct = {k: params.pop(k) for k in list(params) if "__" not in k}
        super().set_params(**direct)
        named = self._named_tasks()
        alone = isinstance(self.tasks, Task)
        for key in [k for k in params if not alone and k.startswith("tasks__")]:
            _, task, name = (*key.split("__", 2), "")[:3]
            if task not in named or not name:
                raise ValueError(
                    f"Invalid parameter {key!r}; `tasks` names {list(named)}"
                )
            named[task].set_params(**{name: params.pop(key)})
        if self.structure is None and any(k.startswith("structure__") for k in params):
            self.structure = "crf"  # a search over its parameters asks for it
        for name, part in self.default_parts().items():
            if any(key.startswith(f"{name}__") for key in params):
                setattr(self, name, part)
        return super().set_params(**params)

    def default_parts(self) -> dict[str, Any]:
        """Return the parts that a None or a name stands for."""
        parts: dict[str, Any] = {}
        if self.features is None:
            parts["features"] = DeepFeatures()
        if self.head is None or (isinstance(self.head, str) and self.head in HEADS):
            parts["head"] = HEADS[self.head or "logistic"]()
        if self.structure == "crf":
            parts["structure"] = Structure(SuperpixelCRF(), PixelCRF())
        return parts

    def _named_tasks(self) -> dict[str, Task]:
        return dict(self.tasks) if isinstance(self.tasks, Mapping) else {}

    def given_tasks(self) -> dict[str, Task]:
        if isinstance(self.tasks, Task):
            return {DEFAULT_TASK: self.tasks}
        return self._named_tasks()
