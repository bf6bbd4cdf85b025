"""Beside an adapter in training: a checkpoint of the best epoch, and LoRA+."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from assignment4.lora.adapter_file import adapter_path
from common.cli import InputError

if TYPE_CHECKING:
    from assignment4.lora.affine import Tensor
    from assignment4.lora.model import LoRA


class AdapterCheckpoint(keras.callbacks.Callback):
    """Saves the active adapter after each epoch of `fit` that is the best so far.

    keras.callbacks.ModelCheckpoint writes the base's weights alone. `path` is as in LoRA.save;
    `monitor` names a value of the logs, which is better when it is smaller, or larger with
    `larger_is_better`. Raises InputError for a value that is not in the logs.
    """

    def __init__(
        self, lora: LoRA, path: Path, monitor: str = "val_loss", larger_is_better: bool = False
    ):
        super().__init__()
        self.lora = lora
        self.path = adapter_path(path)
        self.monitor = monitor
        self.sign = -1 if larger_is_better else 1
        self.best: float | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        if self.monitor not in logs:
            raise InputError(
                f"monitor {self.monitor}: the logs have {', '.join(logs) or 'nothing'}"
            )
        value = float(logs[self.monitor])
        if self.best is None or self.sign * value < self.sign * self.best:
            self.lora.save(self.path)
            self.best = value


def lora_plus(
    optimizer: keras.optimizers.Optimizer, lora: LoRA, ratio: float
) -> keras.optimizers.Optimizer:
    """Gives every B a rate of `ratio` times the optimizer's (LoRA+, Hayou et al. 2024, section 4).

    It changes the step itself and not the gradient, to whose scale Adam is blind, so that it goes
    with any Keras optimizer; weight decay keeps the plain rate. Returns the optimizer. Raises
    InputError for a ratio that is not a finite number above 0.
    """
    _check_ratio(ratio)
    step = optimizer.update_step

    def update_step(
        gradient: Tensor, variable: keras.Variable, learning_rate: Tensor | float
    ) -> None:
        second = _is_second(variable, lora)
        step(gradient, variable, learning_rate * ratio if second else learning_rate)

    vars(optimizer)["update_step"] = update_step
    return optimizer


def lora_plus_rates(lora: LoRA, ratio: float) -> list[float]:
    """The factor of the learning rate of each of the active adapter's trainable variables in LoRA+:
    `ratio` for every B, 1 for the others.

    For an optimizer that does not see the variables one by one. Raises InputError as `lora_plus`.
    """
    _check_ratio(ratio)
    return [ratio if _is_second(each, lora) else 1.0 for each in lora.trainable_variables]


def _check_ratio(ratio: float) -> None:
    if not (ratio > 0 and math.isfinite(ratio)):
        raise InputError(f"ratio {ratio}: it must be a finite number above 0")


def _is_second(variable: keras.Variable, lora: LoRA) -> bool:
    """Whether a variable is a B."""
    return any(
        variable is form
        for name in lora.names
        for factors in lora.adapter(name).factors.values()
        for form in (factors.b, factors.b.value)
    )
