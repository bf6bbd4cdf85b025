"""Networks trained by gradient descent on code maps, as scikit-learn classifiers.

The MLP, and small CNNs on codes and on pictures, the ceiling of an untrained hidden layer.

Shape letters: n rows, B batch, V views, p inputs, P places of a code map, S its side, k classes,
m codebook size, d code dimension, w channels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from assignment1.elm import ClassWeight, Penalty, integer_seed, weighted_rows
from assignment1.features import Matrix, Transformer, features_from_file, features_to_file
from common.cli import InputError
from common.files import JsonObject, StateDict, atomic_path
from common.run import progress
from common.weights import count_parameters

Optimiser: TypeAlias = Literal["sgd", "adamw"]

WARM_UP_SHARE = 0.15  # of the steps of the one-cycle schedule
ROWS_AT_ONCE = 1024  # at prediction
EARLY_DROPOUT = (0.1, 0.2)  # share of channels that the CNN drops after its first two stages
# settings that a file does not hold
UNSAVED = ("features", "random_state", "codebook", "device", "class_weight")


class Epoch(TypedDict):
    """The mean training loss of one epoch."""

    epoch: int
    loss: float


class Target(NamedTuple):
    """Class indices (n,), and, where there are such, weights (n,) or a teacher's answers (n, k)."""

    labels: Tensor
    weight: Tensor | None
    soft: Tensor | None

    def of(self, rows: Tensor, device: str) -> Target:
        """The targets of some rows, on a device."""
        parts = (None if part is None else part[rows].to(device) for part in self)
        return Target(*parts)  # type: ignore[arg-type]


class MLPClassifier(ClassifierMixin, BaseEstimator):
    """Multilayer perceptron with a penalty on its output layer.

    Parameters
    ----------
    hidden : widths of the ReLU layers.
    optimiser : "sgd" (constant rate, as the course) | "adamw" (one cycle, weight decay).
    penalty, alpha, l1_ratio : on the output weights w: alpha (l1_ratio |w|_1 + (1 - l1_ratio)
        |w|^2 / 2) is added to the loss.
    views : V of a row, side by side in its features: its mirror image, say, or warped copies. One
        of them is trained on at random, all are averaged at prediction.
    features : a transformer that is fitted first.
    precision : "float32" | "bfloat16" for the products.
    class_weight : None | "balanced" | {class: weight}; multiplies the rows' own weights.
    soft_share : share of the loss that is the cross-entropy with a teacher's probabilities, where
        `fit` is given such (distillation, Hinton et al. 2015).

    Attributes: classes_, network_ (torch module), history_ (list of Epoch), parameters_ (int).
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (512, 256),
        optimiser: Optimiser = "adamw",
        learning_rate: float = 1e-3,
        epochs: int = 30,
        batch: int = 128,
        weight_decay: float = 0.05,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        penalty: Penalty = None,
        alpha: float = 1e-3,
        l1_ratio: float = 0.5,
        views: int = 1,
        features: Transformer | None = None,
        precision: str = "float32",
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
        class_weight: ClassWeight = None,
        soft_share: float = 0.5,
    ):
        self.hidden = hidden
        self.optimiser = optimiser
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch = batch
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.views = views
        self.features = features
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.class_weight = class_weight
        self.soft_share = soft_share

    # -- training

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        sample_weight: np.ndarray | None = None,
        soft: np.ndarray | None = None,
    ) -> MLPClassifier:
        """Trains from a fresh initialisation.

        The loss is the mean over the rows, weighted by `sample_weight` (n,): with full batches a
        weight of 2 is the row twice, with smaller ones on average; rows of weight 0 are left out.
        `features` are fitted on the rows as they are. `soft` (n, k) holds a teacher's probabilities
        of the sorted classes. Raises ValueError for bad parameters, for `soft` beside weights, and
        for fewer than two classes, FloatingPointError where the loss is not finite.
        """
        penalties = (None, "ridge", "lasso", "elasticnet")
        if self.optimiser not in ("sgd", "adamw") or self.penalty not in penalties:
            raise ValueError(
                f"optimiser={self.optimiser!r}, penalty={self.penalty!r}; "
                "see the class's documentation"
            )
        X, y = validate_data(self, X, y, dtype=self._dtypes)
        check_classification_targets(y)
        X, y, weight = weighted_rows(X, y, sample_weight, self.class_weight)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if soft is not None and (weight is not None or soft.shape != (len(y), len(self.classes_))):
            raise ValueError("soft needs a row for each row of X, a column a class, and no weights")
        if len(self.classes_) < 2:
            raise ValueError(
                f"Classifier can't train when only one class is present: {self.classes_[0]!r}"
            )
        if self.features is not None:
            self.features_ = clone(self.features).fit(X, y)

        seed = integer_seed(self.random_state)
        inputs = self._prepare(X)
        self.inputs_ = self._columns // self.views
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network_ = self._build(self.inputs_, len(self.classes_)).to(self.device)
            target = Target(
                torch.from_numpy(labels),
                None if weight is None else torch.from_numpy(weight / weight.mean()).float(),
                None if soft is None else torch.from_numpy(soft).float(),
            )
            self._train(inputs, target, np.random.default_rng(seed))
        self.parameters_ = count_parameters(self.network_)
        return self

    def _train(self, inputs: Tensor, target: Target, rng: np.random.Generator) -> None:
        """The training loop, on inputs (n, p)."""
        network = self.network_.train()
        batch = min(self.batch, len(inputs))
        optimiser, schedule = self._optimiser(self.epochs * (len(inputs) // batch))
        autocast = torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")
        self.history_: list[Epoch] = []
        for epoch in progress(range(self.epochs), type(self).__name__):
            order = rng.permutation(len(inputs))
            losses = []
            for start in range(0, len(order) - batch + 1, batch):
                rows = torch.from_numpy(order[start : start + batch])
                x = inputs[rows]
                if self.views > 1:
                    x = one_view(x, self.views, rng)
                with autocast:
                    logits = network(self._numbers(x))  # (B, k)
                loss = self._loss(logits, target.of(rows, self.device))
                if self.penalty is not None:
                    loss = loss + self._penalty()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
            if not np.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"{type(self).__name__}: the loss is {losses[-1]} in epoch {epoch + 1}; "
                    f"the last finite one was {losses[0]}"
                )
            self.history_.append({"epoch": epoch + 1, "loss": float(np.mean(losses))})

    def _loss(self, logits: Tensor, target: Target) -> Tensor:
        """Mean cross-entropy of logits (B, k) with the labels, and with a teacher's answers."""
        logits = logits.float()
        smoothing = self.label_smoothing
        if target.weight is not None:
            losses = F.cross_entropy(
                logits, target.labels, label_smoothing=smoothing, reduction="none"
            )  # (B,)
            return (losses * target.weight).mean()
        loss = F.cross_entropy(logits, target.labels, label_smoothing=smoothing)
        if target.soft is None:
            return loss
        imitation = F.cross_entropy(logits, target.soft)
        return (1 - self.soft_share) * loss + self.soft_share * imitation

    def _optimiser(self, steps: int) -> tuple[Optimizer, LRScheduler]:
        parameters = self.network_.parameters()
        if self.optimiser == "sgd":
            sgd = SGD(parameters, lr=self.learning_rate)
            return sgd, ConstantLR(sgd, factor=1)
        adamw = AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)
        schedule = OneCycleLR(
            adamw, max_lr=self.learning_rate, total_steps=steps, pct_start=WARM_UP_SHARE
        )
        return adamw, schedule

    def _penalty(self) -> Tensor:
        """alpha (l1_ratio |w|_1 + (1 - l1_ratio) |w|^2 / 2) of the output weights."""
        linear = [layer for layer in self.network_.modules() if isinstance(layer, nn.Linear)]
        weight = linear[-1].weight
        l1 = {"lasso": 1.0, "elasticnet": self.l1_ratio}.get(self.penalty or "", 0.0)
        return self.alpha * (l1 * weight.abs().sum() + (1 - l1) / 2 * weight.square().sum())

    def _build(self, inputs: int, outputs: int) -> nn.Module:
        layers: list[nn.Module] = []
        for number, width in enumerate(self.hidden):
            if self.sparse_ and number == 0:
                layers.append(OneHotLinear(inputs, width))
            else:
                layers.append(nn.Linear(inputs, width))
            layers += [nn.ReLU(), nn.Dropout(self.dropout)]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def _prepare(self, X: np.ndarray) -> Tensor:
        """Features float32 (n, p), or int64 (n, P), the places of the ones, where one-hot."""
        features = self._features(X)
        self._columns = features.shape[1]
        self.sparse_ = not isinstance(features, np.ndarray)
        if isinstance(features, np.ndarray):
            # standardised features of many views lose nothing in half the memory
            kind = np.float32 if self.views == 1 else np.float16
            return torch.from_numpy(np.ascontiguousarray(features, dtype=kind))
        places = features.indices.reshape(len(features.indptr) - 1, -1)  # (n, P)
        return torch.from_numpy(places.astype(np.int64))

    def _numbers(self, x: Tensor) -> Tensor:
        """A batch on the device, as the network takes it."""
        x = x.to(self.device)
        return x.float() if x.is_floating_point() else x

    def _features(self, X: np.ndarray) -> Matrix:
        return X if self.features is None else self.features_.transform(X)

    @property
    def _dtypes(self) -> list[type] | None:
        """What validate_data converts X to; features take X as it is."""
        return [np.float32, np.float64] if self.features is None else None

    # -- prediction

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities float32 (n, k)."""
        return self._mean_over(X, self.views)

    def first_view_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities float32 (n, k) of the first view of each row alone, in less time."""
        return self._mean_over(X, 1)

    def _mean_over(self, X: np.ndarray, first: int) -> np.ndarray:
        """Probabilities float32 (n, k), means over the first views of each row."""
        check_is_fitted(self, "network_")
        X = validate_data(self, X, dtype=self._dtypes, reset=False)
        network = self.network_.eval()
        blocks = []
        with torch.no_grad():
            for start in range(0, len(X), ROWS_AT_ONCE):
                x = self._numbers(self._prepare(X[start : start + ROWS_AT_ONCE]))
                views = x.chunk(self.views, 1)[:first]
                total = sum(network(view).float().softmax(1) for view in views)
                blocks.append(total.cpu().numpy() / first)
        return np.concatenate(blocks)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Class of the largest probability (n,)."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    # -- files

    def save(self, path: Path) -> None:
        """Writes the fitted model as safetensors: weights in float16, settings as metadata."""
        check_is_fitted(self, "network_")
        settings = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if name not in UNSAVED
        }
        facts: JsonObject = {
            "settings": settings,
            "inputs": self.inputs_,
            "columns": self.n_features_in_,
            "classes": self.classes_.tolist(),
            "sparse": self.sparse_,
        }
        tensors = {
            f"network.{name}": tensor.half().cpu()
            for name, tensor in self.network_.state_dict().items()
        }
        if self.features is not None:
            facts["features"], arrays = features_to_file(self.features_)
            for name, array in arrays.items():
                tensors[name] = torch.from_numpy(np.ascontiguousarray(array))
        metadata = {"class": type(self).__name__, "facts": json.dumps(facts)}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(tensors, metadata=metadata))

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> MLPClassifier:
        """Reads what `save` wrote, an MLP or a CNN. Raises InputError for anything else."""
        kinds = {kind.__name__: kind for kind in (MLPClassifier, *MLPClassifier.__subclasses__())}
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts: JsonObject = json.loads(metadata["facts"])
            settings = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in facts["settings"].items()
            }
            model = kinds[metadata["class"]](**settings, device=device)
            model._restore(facts, tensors)
        except Exception as error:
            raise InputError(f"{path}: not a network that assignment1 saved ({error})") from None
        return model

    def _restore(self, facts: JsonObject, tensors: StateDict) -> None:
        """Takes the fitted state from a file's metadata and tensors."""
        weights = {
            name.removeprefix("network."): tensor
            for name, tensor in tensors.items()
            if name.startswith("network.")
        }
        self.classes_ = np.array(facts["classes"])
        self.sparse_ = facts["sparse"]
        self.inputs_ = facts["inputs"]
        self.n_features_in_ = facts["columns"]
        self._take_codebook(weights)
        if "features" in facts:
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            self.features_ = features_from_file(facts["features"], arrays)
            self.features = self.features_
        self.network_ = self._build(self.inputs_, len(self.classes_)).to(self.device)
        self.network_.load_state_dict(weights)
        self.parameters_ = count_parameters(self.network_)

    def _take_codebook(self, weights: StateDict) -> None:
        """Takes what `_build` needs from the weights; an MLP needs nothing."""


def one_view(x: Tensor, views: int, rng: np.random.Generator) -> Tensor:
    """One of the views in each row of x (B, views * p), at random: (B, p)."""
    chosen = torch.from_numpy(rng.integers(views, size=len(x)))
    return x.reshape(len(x), views, -1)[torch.arange(len(x)), chosen]


class OneHotLinear(nn.EmbeddingBag):
    """A linear layer on one-hot inputs, given as the places of the ones (B, P).

    Its output is a sum of P rows of its matrix.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__(inputs, width, mode="sum")
        nn.init.normal_(self.weight, std=width**-0.5 / 12)


class CNNClassifier(MLPClassifier):
    """A small convolutional network on the looked-up code map; its code vectors go on learning.

    X holds code indices (n, V S S); `codebook` float32 (m, d) starts the embedding; `hidden[0]` is
    the width w of the first stage.
    """

    def __init__(
        self,
        codebook: np.ndarray | None = None,
        hidden: tuple[int, ...] = (64,),
        optimiser: Optimiser = "adamw",
        learning_rate: float = 3e-3,
        epochs: int = 10,
        batch: int = 128,
        weight_decay: float = 0.05,
        dropout: float = 0.4,
        label_smoothing: float = 0.1,
        penalty: Penalty = None,
        alpha: float = 1e-3,
        l1_ratio: float = 0.5,
        views: int = 1,
        features: Transformer | None = None,
        precision: str = "float32",
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
        class_weight: ClassWeight = None,
    ):
        super().__init__(
            hidden,
            optimiser,
            learning_rate,
            epochs,
            batch,
            weight_decay,
            dropout,
            label_smoothing,
            penalty,
            alpha,
            l1_ratio,
            views,
            features,
            precision,
            device,
            random_state,
            class_weight,
        )
        self.codebook: np.ndarray | None = codebook

    def _build(self, inputs: int, outputs: int) -> nn.Module:
        width = self.hidden[0]
        table = torch.tensor(self.codebook, dtype=torch.float32)  # a copy: training changes it
        channels = table.shape[1]
        return nn.Sequential(
            Lookup(table, side=round(inputs**0.5)),  # (B, d, S, S)
            *stage(channels, width),  # (B, w, S, S)
            *stage(width, width),
            *stage(width, width),
            nn.MaxPool2d(2),  # (B, w, S/2, S/2)
            nn.Dropout2d(EARLY_DROPOUT[0]),
            *stage(width, 2 * width),  # (B, 2 w, S/2, S/2)
            *stage(2 * width, 2 * width),
            nn.MaxPool2d(2),  # (B, 2 w, S/4, S/4)
            nn.Dropout2d(EARLY_DROPOUT[1]),
            *stage(2 * width, 4 * width),  # (B, 4 w, S/4, S/4)
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),  # (B, 4 w)
            nn.Dropout(self.dropout),
            nn.Linear(4 * width, outputs),  # (B, k)
        )

    def _take_codebook(self, weights: StateDict) -> None:
        self.codebook = weights["0.embedding.weight"].numpy()

    def _prepare(self, X: np.ndarray) -> Tensor:
        """Code indices int64 (n, P)."""
        features = self._features(X)
        self.sparse_ = False
        self._columns = features.shape[1]
        return torch.from_numpy(np.ascontiguousarray(features, dtype=np.int64))


class PictureCNNClassifier(MLPClassifier):
    """A small convolutional network on pictures: X holds grey pixels (n, V S S).

    Each picture is brought to mean 0 and variance 1; half of a batch is mirrored in training, and
    both images are averaged at prediction. `hidden[0]` is the width w of the first stage.
    """

    def _build(self, inputs: int, outputs: int) -> nn.Module:
        width = self.hidden[0]
        network = nn.Sequential(
            *stage(1, width, stride=2),  # (B, w, S/2, S/2)
            *stage(width, 2 * width),  # (B, 2 w, S/2, S/2)
            nn.MaxPool2d(2),
            nn.Dropout2d(EARLY_DROPOUT[0]),
            *stage(2 * width, 4 * width),  # (B, 4 w, S/4, S/4)
            *stage(4 * width, 4 * width),
            nn.MaxPool2d(2),
            nn.Dropout2d(EARLY_DROPOUT[1]),
            *stage(4 * width, 8 * width),  # (B, 8 w, S/8, S/8)
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),  # (B, 8 w)
            nn.Dropout(self.dropout),
            nn.Linear(8 * width, outputs),  # (B, k)
        )
        return Mirrored(network, side=round(inputs**0.5))

    def _mean_over(self, X: np.ndarray, first: int) -> np.ndarray:
        """As of the MLP, in the arithmetic of training: float32 takes three times as long."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return super()._mean_over(X, first)

    def _prepare(self, X: np.ndarray) -> Tensor:
        """Pixels as they are, (n, V S S): they are standardised picture by picture later."""
        features = self._features(X)
        self.sparse_ = False
        self._columns = features.shape[1]
        return torch.from_numpy(np.ascontiguousarray(features))


class Mirrored(nn.Module):
    """A network on standardised pictures or their mirror images, which it should not tell apart.

    Pixels (B, S S) -> scores (B, k): of one of the two at random in training, else the mean.
    """

    def __init__(self, network: nn.Module, side: int):
        super().__init__()
        self.network = network
        self.side = side

    def forward(self, pixels: Tensor) -> Tensor:
        pictures = pixels.float().reshape(-1, 1, self.side, self.side)
        pictures = pictures - pictures.mean((2, 3), keepdim=True)
        pictures = pictures / pictures.std((2, 3), keepdim=True).clamp(min=1e-3)
        if not self.training:
            return (self.network(pictures) + self.network(pictures.flip(3))) / 2
        flipped = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) < 0.5
        return self.network(torch.where(flipped, pictures.flip(3), pictures))


def stage(channels: int, out: int, stride: int = 1) -> list[nn.Module]:
    """3 x 3 convolution, batch normalisation and ReLU."""
    convolution = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(out), nn.ReLU()]


class Lookup(nn.Module):
    """Code indices (B, S S) -> their vectors (B, d, S, S), from a table (m, d) that is trained."""

    def __init__(self, table: Tensor, side: int):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(table, freeze=False)
        self.side = side

    def forward(self, indices: Tensor) -> Tensor:
        vectors = self.embedding(indices)  # (B, S S, d)
        return vectors.transpose(1, 2).reshape(len(indices), -1, self.side, self.side)
