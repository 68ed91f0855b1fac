"""SharedLayerNetwork: tasks that share hidden layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from mtsk._resources import fast_bfloat16, one_blas_thread
from mtsk._validation import (
    Interval,
    check_parameters,
    group_numbers,
    parameter_error,
)
from mtsk.heads.base import COLUMNS, JointHead
from mtsk.heads.capabilities import Capabilities
from mtsk.heads.class_weights import (
    CLASS_WEIGHT,
    ClassWeight,
    class_weights,
    prior_corrections,
)
from mtsk.heads.dropout import Dropout
from mtsk.heads.losses import each_loss, null_loss, prior_of
from mtsk.heads.statistics import inverse_std, mean_and_variance
from mtsk.heads.training import Trainer, numpy_state
from mtsk.heads.weighting import TaskWeighting, make_weighting
from mtsk.tasks.columns import ColumnGroup, labelled_columns

__all__ = ["SharedLayerNetwork"]


class SharedLayerNetwork(JointHead):
    """Fully connected layers shared by all tasks, and an output layer per column group.

    Minimises, over minibatches of rows, the sum of the groups' losses: cross-entropy
    (nominal, binary) or half the squared error of the standardised numbers (real),
    each over its labelled rows and divided by the loss of the null model, which
    predicts the group's prior. Missing entries contribute to neither loss nor
    gradients. Caruana's multi-task network (*Machine Learning* 28, 1997), with
    rectified units, dropout (Srivastava et al., *JMLR* 15, 2014), AdamW (Loshchilov &
    Hutter, ICLR 2019) and one cycle of the learning rate (Smith & Topin, 2019).

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, default=(512,)
        Units of each shared layer.
    n_components : int or None, default=512
        The first layer sees the projections of the standardised rows onto at most this
        many of their principal components, which are found in up to 20,000 rows. None
        shows it all features: for the thousands of a hypercolumn, most of the time of a
        fit.
    dropout : float in [0, 1), default=0.5
        Dropout rate after each shared layer.
    learning_rate : float, default=2e-3
        Maximum of the cycle.
    weight_decay : float, default=1e-2
    n_epochs : int, default=15
        Passes over the rows. At least 300 steps are made, however few the rows.
    batch_size : int, default=None
        None is 2048, or a sixteenth of the rows if that is less; at least 32.
    task_weights : str, TaskWeighting, sequence or mapping of float, default="equal"
        "equal", "uncertainty", "geometric", "gradnorm", "dwa", "famo", "pcgrad", a
        `TaskWeighting`, or numbers from 0 to 1e6: one per column group, or by its
        index; in a segmenter, by the task's name. They weight the tasks of one network:
        in a segmenter, pixel tasks share one, image tasks another.
    class_weight : {"sqrt", "balanced"}, float in [0, 1] or None, default="sqrt"
        Classes and labels of frequency f weigh ∝ 1/√f, 1/f, f to the power of minus
        this number, or 1.
    early_stopping : bool, default=False
        Whether a tenth of the groups of rows is held out, and the epoch with the lowest
        held-out loss kept.
    columns : list of ColumnGroup, default=None
        What the columns of ``y`` are (then coded, NaN missing). None reads integer,
        bool and str columns as classes, float ones as numbers.
    device : str, default="auto"
        ``"auto"`` is a GPU where there is one, else the CPU.
    random_state : int, RandomState or None, default=None
        Initial weights, order of rows, dropout. On one CPU, an integer gives bitwise
        identical results.
    verbose : int, default=0
        Above 0 shows a progress bar.

    Attributes
    ----------
    network_ : dict of str to ndarray
        The parameters.
    groups_ : list of ColumnGroup
    losses_ : list of ndarray of shape (n_groups,)
        Mean training loss of each group, by epoch; 1 is the null model's.
    held_out_ : list of float
        With ``early_stopping``, the mean loss of held-out rows, by epoch.
    n_iter_ : int
        Epochs whose parameters were kept.

    See Also
    --------
    JointLogistic : Linear models without sharing.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import SharedLayerNetwork
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 2))
    >>> y = X[:, 0] * X[:, 1] > 0
    >>> network = SharedLayerNetwork((32,), n_epochs=40, random_state=0).fit(X, y)
    >>> bool((network.predict(X) == y).mean() > 0.9)
    True
    """

    min_steps: ClassVar[int] = 300  # of training, however few the rows

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (512,),
        *,
        n_components: int | None = 512,
        dropout: float = 0.5,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        n_epochs: int = 15,
        batch_size: int | None = None,
        task_weights: str | TaskWeighting | Sequence[float] | Mapping[int, float] = (
            "equal"
        ),
        class_weight: ClassWeight = "sqrt",
        early_stopping: bool = False,
        columns: Sequence[ColumnGroup] | None = None,
        device: str = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_components = n_components
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.task_weights = task_weights
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.columns = columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @property
    def capabilities(self) -> Capabilities:
        """What the head can do."""
        return Capabilities(
            is_joint=True,
            takes_groups=True,
            takes_entry_weights=True,
            weighs_tasks=True,
            rows_per_image=1000,
        )

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
        sample_weight : array-like of shape (n_samples,) or as ``y``, default=None
        groups : array-like of shape (n_samples,), default=None
            Rows of one group, such as the pixels of one image, are held out together.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, ValueError
        """
        self._check_parameters()
        X, Y, weight = self.check_table(X, y, sample_weight)
        random = check_random_state(self.random_state)
        seed = int(random.randint(np.iinfo(np.int32).max))
        weighting = make_weighting(self.task_weights, len(self.groups_), self)
        held = self._held_out(len(X), groups, seed)
        target = torch.device(_best_device() if self.device == "auto" else self.device)
        mean, variance = mean_and_variance(X, weight.max(axis=1))
        self._mean = mean.astype(np.float32)
        self._scale = inverse_std(variance, mean).astype(np.float32)
        with (
            torch.random.fork_rng(devices=[]),
            one_blas_thread(),
        ):
            torch.manual_seed(seed)
            components = self._find_components(X, weight)
            rows = _Rows(X, Y, weight, self, components, target)
            self.prior_corrections_ = prior_corrections(
                self.groups_, Y, weight, self.class_weight
            )
            network = _Network(
                rows.X.shape[1], self.hidden_layer_sizes, self.dropout, self.groups_
            )
            self._train(network.to(target), rows, held, weighting, seed)
            if components is not None:
                # So that the first layer takes all features, and projects them itself.
                projected = self.network_["shared.0.weight"]
                self.network_["shared.0.weight"] = projected @ components.numpy().T
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores of every group, side by side.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of float32, shape (n_samples, n_scores)
            Logits of classes and labels; numbers of real columns.
        """
        check_is_fitted(self)
        X = validate_data(
            self, X, reset=False, dtype=[np.float32, np.float64], order="C"
        )
        with torch.inference_mode():
            return self.to_torch()(
                torch.from_numpy(X.astype(np.float32, copy=False))
            ).numpy()

    def to_torch(self) -> nn.Module:
        """Return a network that maps rows to scores as `decision_function` does.

        Returns
        -------
        torch.nn.Module
        """
        check_is_fitted(self)
        network = _Network(
            self.n_features_in_, self.hidden_layer_sizes, 0.0, self.groups_
        )
        state = {k: torch.from_numpy(v) for k, v in self.network_.items()}
        network.load_state_dict(state)
        scaled = _Scaled(
            network.eval(), self._mean, self._scale, self._t_scale, self._t_shift
        )
        return scaled.requires_grad_(False)

    def _check_parameters(self) -> None:
        check_parameters(self, _CONSTRAINTS)
        sizes = list(self.hidden_layer_sizes)
        if not sizes or not all(isinstance(h, Integral) and h > 0 for h in sizes):
            allowed = "ints > 0, one a layer"
            raise parameter_error("hidden_layer_sizes", self, allowed, sizes)
        if self.device != "auto" and not _is_device(self.device):
            allowed = "'auto', 'cpu', or a GPU that torch can use here, such as 'cuda'"
            raise parameter_error("device", self, allowed, self.device)

    def _find_components(self, X: np.ndarray, weight: np.ndarray) -> Tensor | None:
        """Return the principal components of standardised rows, (n_features, n).

        They are scaled so that projections have, on average, a variance of 1. None
        stands for all features.
        """
        if self.n_components is None or X.shape[1] <= self.n_components:
            return None
        used = np.flatnonzero(weight.any(axis=1))
        some = used[np.linspace(0, len(used) - 1, min(len(used), _SEEN)).astype(int)]
        rows = torch.from_numpy(self._standardised(X[some]))
        variances, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
        kept = variances.clamp(min=0)[-self.n_components :]
        is_varied = kept > kept[-1] * _RANK
        if not is_varied.any():
            return None
        scale = kept[is_varied].mean().sqrt()
        return (vectors[:, -self.n_components :][:, is_varied] / scale).contiguous()

    def _standardised(self, X: np.ndarray) -> np.ndarray:
        return ((X - self._mean) * self._scale).clip(-_FAR, _FAR)

    def _held_out(self, n_rows: int, groups: Any, seed: int) -> np.ndarray:
        """Return which rows are held out."""
        if groups is None:
            groups = np.arange(n_rows)
        numbers = group_numbers(groups, n_rows)
        if not self.early_stopping:
            return np.zeros(n_rows, bool)
        n_groups = int(numbers.max()) + 1
        if n_groups < 2:
            raise ValueError("early_stopping needs rows of at least two groups")
        order = np.random.default_rng(seed).permutation(n_groups)
        return np.isin(numbers, order[: max(1, n_groups // 10)])

    def _train(
        self,
        network: _Network,
        rows: _Rows,
        held: np.ndarray,
        weighting: TaskWeighting,
        seed: int,
    ) -> None:
        inside = torch.from_numpy(np.flatnonzero(~held))
        size = self.batch_size or int(np.clip(len(inside) // 16, 32, _BATCH))
        n_steps = max(1, len(inside) // size)

        def batches(epoch: int) -> Iterator[Tensor]:
            order = inside[torch.randperm(len(inside))]
            yield from order[: n_steps * size].split(size)

        trainer = Trainer(
            weighting,
            len(self.groups_),
            max(self.n_epochs, -(-self.min_steps // n_steps)),
            n_steps,
            self.learning_rate,
            self.weight_decay,
            seed,
            "head",
            self.verbose,
        )
        self.losses_: list[np.ndarray] = []
        self.held_out_: list[float] = []
        best = np.inf
        for means in trainer.epochs(
            network,
            network.shared_parameters(),
            batches,
            partial(rows.losses, network),
        ):
            self.losses_.append(means)
            if held.any():
                self.held_out_.append(rows.mean_loss(network, held))
            if not held.any() or self.held_out_[-1] < best:
                best = self.held_out_[-1] if held.any() else best
                self.n_iter_ = len(self.losses_)
                self.network_ = numpy_state(network)
        self._t_scale, self._t_shift = rows.t_scale, rows.t_shift


_FAR = 10.0  # standard deviations; larger values are clipped
_BATCH = 2048
_SEEN = 20_000  # rows that components are found in
_RANK = 1e-5  # variance, as a share of the largest, below which a component is noise
_CONSTRAINTS: dict[str, list] = {
    "hidden_layer_sizes": ["array-like"],
    "n_components": [Interval(Integral, 1, None, closed="left"), None],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "n_epochs": [Interval(Integral, 1, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left"), None],
    "task_weights": [str, TaskWeighting, "array-like", Mapping],
    "class_weight": CLASS_WEIGHT,
    "early_stopping": ["boolean"],
    "columns": COLUMNS,
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def _is_device(name: str) -> bool:
    """Return whether torch can use a device on this machine."""
    try:
        kind = torch.device(name).type
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return kind in ("cpu", "cuda", "mps")


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class _Network(nn.Module):
    """Shared layers, then one output layer for all groups' scores side by side."""

    def __init__(
        self,
        n_features: int,
        hidden: Sequence[int],
        dropout: float,
        groups: Sequence[ColumnGroup],
    ) -> None:
        super().__init__()
        widths = [n_features, *(int(h) for h in hidden)]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), Dropout(dropout)]
        self.shared = nn.Sequential(*layers)
        self.outputs = nn.ModuleList(nn.Linear(widths[-1], g.size) for g in groups)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.shared(rows).to(self.outputs[0].weight.dtype)
        with torch.autocast(rows.device.type, enabled=False):
            return torch.cat([layer(hidden) for layer in self.outputs], dim=-1)

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.shared.parameters())


class _Scaled(nn.Module):
    """A network of standardised rows, for rows and scores in their own units."""

    mean: Tensor
    scale: Tensor
    t_scale: Tensor
    t_shift: Tensor

    def __init__(
        self,
        network: _Network,
        mean: np.ndarray,
        scale: np.ndarray,
        t_scale: np.ndarray,
        t_shift: np.ndarray,
    ) -> None:
        super().__init__()
        self.network = network
        for name, numbers in (
            ("mean", mean),
            ("scale", scale),
            ("t_scale", t_scale),
            ("t_shift", t_shift),
        ):
            self.register_buffer(name, torch.from_numpy(np.array(numbers, np.float32)))

    def forward(self, rows: Tensor) -> Tensor:
        rows = ((rows - self.mean) * self.scale).clamp(-_FAR, _FAR)
        scores: Tensor = self.network(rows)
        return scores * self.t_scale + self.t_shift


class _Rows:
    """What the first layer sees of a table, and the groups' losses on its rows."""

    def __init__(
        self,
        X: np.ndarray,
        Y: np.ndarray,
        weight: np.ndarray,
        head: SharedLayerNetwork,
        components: Tensor | None,
        device: torch.device,
    ) -> None:
        self.device = device
        self._half = device.type != "cpu" or fast_bfloat16()
        dtype = torch.bfloat16 if self._half else torch.float32
        width = X.shape[1] if components is None else components.shape[1]
        self.X = torch.empty((len(X), width), dtype=dtype)
        for start in range(0, len(X), 8192):
            part = slice(start, start + 8192)
            standard = torch.from_numpy(head._standardised(X[part]))
            seen = standard if components is None else standard @ components
            self.X[part] = seen.to(dtype)
        n_scores = sum(g.size for g in head.groups_)
        self.t_scale = np.ones(n_scores, np.float32)
        self.t_shift = np.zeros(n_scores, np.float32)
        self._parts = []
        for group, columns, scores in labelled_columns(head.groups_):
            mass = class_weights(
                group, Y[:, columns], weight[:, columns], head.class_weight
            )
            if not mass.any():
                raise ValueError(
                    "a column group has no labelled row of positive weight"
                )
            target = np.nan_to_num(Y[:, columns]).astype(np.float32)
            if group.kind == "real":
                total = mass.sum(axis=0)
                total = np.where(total > 0, total, 1)
                mean = (mass * target).sum(axis=0) / total
                variance = (mass * (target - mean) ** 2).sum(axis=0) / total
                std = np.where(variance > 0, np.sqrt(variance), 1.0)
                self.t_shift[scores], self.t_scale[scores] = mean, std
                target = ((target - mean) / std).astype(np.float32)
            null = null_loss(group, prior_of(group, target, mass))
            unit = mass * (len(X) / mass.sum() / null)  # so that batches are unbiased
            self._parts.append(
                (
                    group,
                    scores,
                    torch.from_numpy(target),
                    torch.from_numpy(unit.astype(np.float32)),
                )
            )

    def losses(self, network: _Network, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses of the groups labelled in a batch, and their indices."""
        batch = self.X[rows].to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            scores = network(batch)
        found, tasks = [], []
        for t, (group, part, target, unit) in enumerate(self._parts):
            own = unit[rows]
            if not own.any():
                continue
            each = each_loss(group, scores[:, part], target[rows].to(self.device))
            found.append((each * own.to(self.device)).sum() / len(rows))
            tasks.append(t)
        losses = torch.stack(found) if found else torch.empty(0)
        return losses, torch.tensor(tasks, dtype=torch.long)

    @torch.inference_mode()
    def mean_loss(self, network: _Network, held: np.ndarray) -> float:
        """Return the mean over groups of the loss of some rows."""
        network.eval()
        sums: dict[int, float] = {}
        counts = 0
        for rows in _batches(held):
            losses, tasks = self.losses(network, rows)
            counts += len(rows)
            for t, loss in zip(tasks.tolist(), losses.tolist(), strict=True):
                sums[t] = sums.get(t, 0.0) + loss * len(rows)
        return sum(sums.values()) / max(1, len(sums)) / counts


def _batches(chosen: np.ndarray) -> Iterator[Tensor]:
    yield from torch.from_numpy(np.flatnonzero(chosen)).split(8192)
