"""Networks trained by gradient descent on code maps, as scikit-learn classifiers: the MLP, and a small CNN as the ceiling.

Shape letters: B batch, p inputs, k classes, S side of a code map, m codebook size, d code dimension.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from assignment1.features import SAVED
from common.cli import InputError
from common.run import atomic_path, progress


class MLPClassifier(ClassifierMixin, BaseEstimator):
    """Multilayer perceptron with a penalty on its output layer.

    Parameters
    ----------
    hidden : widths of the ReLU layers.
    optimiser : "sgd" (constant rate, as the course) | "adamw" (cosine to zero, weight decay).
    penalty, alpha, l1_ratio : on the output weights w: alpha (l1_ratio |w|_1 + (1 - l1_ratio) |w|^2 / 2) is added to the loss.
    mirror : X holds the mirror image's features behind the image's; one of the two is trained on at random, both are
        averaged at prediction.
    features : a transformer that is fitted first. precision : "float32" | "bfloat16" for the products.

    Attributes: classes_, network_ (torch module), history_ (list of {"epoch", "loss"}), parameters_ (int).
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (512, 256),
        optimiser: Literal["sgd", "adamw"] = "adamw",
        learning_rate: float = 1e-3,
        epochs: int = 30,
        batch: int = 128,
        weight_decay: float = 0.05,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        penalty: Literal["ridge", "lasso", "elasticnet"] | None = None,
        alpha: float = 1e-3,
        l1_ratio: float = 0.5,
        mirror: bool = False,
        features: Any = None,
        precision: str = "float32",
        device: str = "cpu",
        random_state: Any = None,
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
        self.mirror = mirror
        self.features = features
        self.precision = precision
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> MLPClassifier:
        """Trains from a fresh initialisation. Raises ValueError for bad parameters or fewer than two classes."""
        if self.optimiser not in ("sgd", "adamw") or self.penalty not in (
            None,
            "ridge",
            "lasso",
            "elasticnet",
        ):
            raise ValueError(
                f"optimiser={self.optimiser!r}, penalty={self.penalty!r}; see the class's documentation"
            )
        X, y = validate_data(
            self, X, y, dtype=None if self.features is not None else [np.float32, np.float64]
        )
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Classifier can't train when only one class is present: {self.classes_[0]!r}"
            )
        if self.features is not None:
            self.features_ = clone(self.features).fit(X, y)
        seed = (
            self.random_state
            if isinstance(self.random_state, int)
            else int(check_random_state(self.random_state).randint(2**31 - 1))
        )
        rng = np.random.default_rng(seed)
        inputs = self._prepare(X)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inputs_ = self._columns // (2 if self.mirror else 1)
            self.network_ = self._build(self.inputs_, len(self.classes_)).to(self.device)
            self._train(inputs, torch.from_numpy(labels), rng)
        self.parameters_ = sum(parameter.numel() for parameter in self.network_.parameters())
        return self

    def _train(self, inputs: Tensor, labels: Tensor, rng: np.random.Generator) -> None:
        network, output = (
            self.network_.train(),
            [layer for layer in self.network_.modules() if isinstance(layer, nn.Linear)][-1],
        )
        batch = min(self.batch, len(inputs))
        total = self.epochs * (len(inputs) // batch)
        if self.optimiser == "sgd":
            optimiser: torch.optim.Optimizer = torch.optim.SGD(
                network.parameters(), lr=self.learning_rate
            )
            schedule: torch.optim.lr_scheduler.LRScheduler = torch.optim.lr_scheduler.ConstantLR(
                optimiser, factor=1
            )
        else:
            optimiser = torch.optim.AdamW(
                network.parameters(),
                lr=self.learning_rate,
                weight_decay=self.weight_decay,
                fused=True,
            )
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimiser, max_lr=self.learning_rate, total_steps=total, pct_start=0.15
            )
        l1 = {"lasso": 1.0, "elasticnet": self.l1_ratio, "ridge": 0.0, None: 0.0}[self.penalty]
        self.history_ = []
        for epoch in progress(range(self.epochs), type(self).__name__):
            order, losses = rng.permutation(len(inputs)), []
            for start in range(0, len(order) - batch + 1, batch):
                rows = torch.from_numpy(order[start : start + batch])
                x, target = inputs[rows], labels[rows].to(self.device)
                if self.mirror:
                    halves = torch.from_numpy(rng.random(batch) < 0.5)[:, None]
                    plain, mirrored = x.chunk(2, 1)
                    x = torch.where(halves, plain, mirrored)
                with torch.autocast(
                    self.device, torch.bfloat16, enabled=self.precision == "bfloat16"
                ):
                    logits = network(x.to(self.device))
                loss = F.cross_entropy(logits.float(), target, label_smoothing=self.label_smoothing)
                if self.penalty is not None:
                    loss = loss + self.alpha * (
                        l1 * output.weight.abs().sum() + (1 - l1) / 2 * output.weight.square().sum()
                    )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
            if not np.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"{type(self).__name__}: the loss is {losses[-1]} in epoch {epoch + 1}; the last finite one was {losses[0]}"
                )
            self.history_.append({"epoch": epoch + 1, "loss": float(np.mean(losses))})

    def _build(self, inputs: int, outputs: int) -> nn.Module:
        layers: list[nn.Module] = []
        for number, width in enumerate(self.hidden):
            layers += [
                _OneHotLinear(inputs, width)
                if self.sparse_ and not number
                else nn.Linear(inputs, width),
                nn.ReLU(),
                nn.Dropout(self.dropout),
            ]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def _prepare(self, X: Any) -> Tensor:
        """Features float32 (n, p), or the places of the ones int64 (n, P) where the features are one-hot."""
        X = X if self.features is None else self.features_.transform(X)
        self.sparse_, self._columns = issparse(X), X.shape[1]
        if self.sparse_:
            return torch.from_numpy(X.indices.reshape(len(X.indptr) - 1, -1).astype(np.int64))
        return torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities float32 (n, k)."""
        check_is_fitted(self, "network_")
        X = validate_data(
            self,
            X,
            dtype=None if self.features is not None else [np.float32, np.float64],
            reset=False,
        )
        network, found = self.network_.eval(), []
        with torch.no_grad():
            for start in range(0, len(X), 1024):
                x = self._prepare(X[start : start + 1024]).to(self.device)
                views = x.chunk(2, 1) if self.mirror else (x,)
                found.append(
                    sum(network(view).softmax(1) for view in views).cpu().numpy() / len(views)
                )
        return np.concatenate(found)

    def predict(self, X: Any) -> np.ndarray:
        """Class of the largest probability (n,)."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def save(self, path: Path) -> None:
        """Writes the fitted model as safetensors, weights in float16, with settings and classes as its metadata."""
        check_is_fitted(self, "network_")
        settings = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if name not in ("features", "random_state", "codebook", "device")
        }
        facts = {
            "settings": settings,
            "inputs": self.inputs_,
            "columns": self.n_features_in_,
            "classes": self.classes_.tolist(),
            "sparse": self.sparse_,
        }
        arrays = {
            f"network.{name}": tensor.half().cpu()
            for name, tensor in self.network_.state_dict().items()
        }
        if self.features is not None:
            held = self.features_.arrays()
            facts["features"] = {
                "class": type(self.features_).__name__,
                "settings": held.pop("settings"),
            }
            arrays |= {
                f"features.{name}": torch.from_numpy(np.ascontiguousarray(array))
                for name, array in held.items()
            }
        with atomic_path(path) as temporary:
            temporary.write_bytes(
                save(arrays, metadata={"class": type(self).__name__, "facts": json.dumps(facts)})
            )

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> MLPClassifier:
        """Reads what `save` wrote, an MLP or a CNN. Raises InputError for anything else."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata, held = (
                    file.metadata(),
                    {name: file.get_tensor(name) for name in file.keys()},
                )
            facts, kind = (
                json.loads(metadata["facts"]),
                {"MLPClassifier": MLPClassifier, "CNNClassifier": CNNClassifier}[metadata["class"]],
            )
            network = {
                name.removeprefix("network."): tensor
                for name, tensor in held.items()
                if name.startswith("network.")
            }
            settings = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in facts["settings"].items()
            }
            model = kind(**settings, device=device)
            if kind is CNNClassifier:
                model.codebook = network["0.embedding.weight"].numpy()
            model.classes_, model.sparse_, model.inputs_ = (
                np.array(facts["classes"]),
                facts["sparse"],
                facts["inputs"],
            )
            model.n_features_in_ = facts["columns"]
            if "features" in facts:
                inner = {
                    name.removeprefix("features."): tensor.numpy()
                    for name, tensor in held.items()
                    if name.startswith("features.")
                }
                model.features = model.features_ = SAVED[facts["features"]["class"]].from_arrays(
                    {"settings": facts["features"]["settings"], **inner}
                )
            model.network_ = model._build(facts["inputs"], len(model.classes_)).to(device)
            model.network_.load_state_dict(network)
            model.parameters_ = sum(parameter.numel() for parameter in model.network_.parameters())
        except Exception as error:
            raise InputError(f"{path}: not a network that assignment1 saved ({error})") from None
        return model


class _OneHotLinear(nn.EmbeddingBag):
    """A linear layer on one-hot inputs, given as the places of the ones (B, P): a sum of P rows of its matrix."""

    def __init__(self, inputs: int, width: int):
        super().__init__(inputs, width, mode="sum")
        nn.init.normal_(self.weight, std=width**-0.5 / 12)


class CNNClassifier(MLPClassifier):
    """A small convolutional network on the looked-up code map, whose code vectors go on learning: the ceiling that
    an untrained hidden layer is measured against.

    X holds code indices (n, S S), or (n, 2 S S) with `mirror`; `codebook` float32 (m, d) starts the embedding;
    `hidden[0]` is the width of the first stage.
    """

    def __init__(
        self,
        codebook: np.ndarray | None = None,
        hidden: tuple[int, ...] = (64,),
        optimiser: Literal["sgd", "adamw"] = "adamw",
        learning_rate: float = 3e-3,
        epochs: int = 10,
        batch: int = 128,
        weight_decay: float = 0.05,
        dropout: float = 0.4,
        label_smoothing: float = 0.1,
        penalty: Literal["ridge", "lasso", "elasticnet"] | None = None,
        alpha: float = 1e-3,
        l1_ratio: float = 0.5,
        mirror: bool = False,
        features: Any = None,
        precision: str = "float32",
        device: str = "cpu",
        random_state: Any = None,
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
            mirror,
            features,
            precision,
            device,
            random_state,
        )
        self.codebook = codebook

    def _build(self, inputs: int, outputs: int) -> nn.Module:
        width, side = self.hidden[0], round(inputs**0.5)

        def stage(channels: int, out: int) -> list[nn.Module]:
            return [
                nn.Conv2d(channels, out, 3, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(),
            ]

        table = torch.tensor(
            self.codebook, dtype=torch.float32
        )  # a copy: the embedding trains it in place
        return nn.Sequential(
            _Lookup(table, side),  # (B, d, S, S)
            *stage(table.shape[1], width),
            *stage(width, width),
            *stage(width, width),
            nn.MaxPool2d(2),
            nn.Dropout2d(0.1),  # (B, w, S/2, S/2)
            *stage(width, 2 * width),
            *stage(2 * width, 2 * width),
            nn.MaxPool2d(2),
            nn.Dropout2d(0.2),  # (B, 2 w, S/4, S/4)
            *stage(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(self.dropout),
            nn.Linear(4 * width, outputs),
        )

    def _prepare(self, X: Any) -> Tensor:
        X = X if self.features is None else self.features_.transform(X)
        self.sparse_, self._columns = False, X.shape[1]
        return torch.from_numpy(np.ascontiguousarray(X, dtype=np.int64))


class _Lookup(nn.Module):
    def __init__(self, table: Tensor, side: int):
        super().__init__()
        self.embedding, self.side = nn.Embedding.from_pretrained(table, freeze=False), side

    def forward(self, indices: Tensor) -> Tensor:
        return (
            self.embedding(indices).transpose(1, 2).reshape(len(indices), -1, self.side, self.side)
        )
