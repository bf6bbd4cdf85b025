"""Networks and batches in a device's memory: placing, and training steps in parts that fit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from assignment5.data import Draws
from common.cli import InputError

Network = TypeVar("Network", bound=nn.Module)


def to_device(network: Network, device: str) -> Network:
    """Moves a network to its device, with the channels last in memory."""
    # torch's stub lacks the memory format
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def backward_in_parts(
    learner: nn.Module,
    objective: Callable[[Draws], Tensor],
    draws: Draws,
    parts: Sequence[slice],
) -> Tensor:
    """Backpropagates the objective of each part of a step's draws; returns the sum of the parts.

    Raises InputError where the device has not enough memory, with the parts that would fit.
    """
    total = torch.zeros((), device=draws.times.device)
    try:
        for part in parts:
            if isinstance(learner, nn.parallel.DistributedDataParallel):
                # the processes exchange their gradients after the last part alone
                learner.require_backward_grad_sync = part is parts[-1]
            total += backward(objective, draws[part])
        return total
    except torch.OutOfMemoryError:
        pass  # outside of the handler the failed step's tensors are free
    size = len(draws[parts[0]])
    raise too_large(len(draws), size, len(parts), largest_part(objective, draws, size))


def backward(objective: Callable[[Draws], Tensor], draws: Draws) -> Tensor:
    """Backpropagates the objective of some draws; returns its value."""
    loss = objective(draws)
    loss.backward()
    return loss.detach()


def largest_part(objective: Callable[[Draws], Tensor], draws: Draws, size: int) -> int:
    """The largest half, quarter, ... of `size` draws that the memory suffices for; 0: none."""
    while size > 1:
        size //= 2
        try:
            backward(objective, draws[:size])
            return size
        except torch.OutOfMemoryError:
            continue
    return 0


def too_large(batch: int, size: int, parts: int, fits: int) -> InputError:
    """The one line for a device without the memory for `size` images of a batch at once."""
    advice = "not even one image fits"
    if fits:
        processes = batch // (size * parts)
        advice = f"parts of {fits} would fit: --accumulate {batch // fits // processes}"
    return InputError(
        f"--batch {batch}: the device has not enough memory for {size} images at once; {advice}"
    )


@contextlib.contextmanager
def matching_shapes(path: Path) -> Iterator[None]:
    """Turns torch's refusal of weights of another shape into one line that names the file."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path} holds weights of another shape than it says ({reason})") from None
