"""Backtests a finished run's forecasters: on its own test part, or on prices they have not seen with --data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assignment2.figures import draw_figures
from assignment2.model import load_forecasters
from common.cli import entry, parse
from common.forecast import EvaluateConfig, Group, Saved, evaluate
from common.prices import COINS
from common.run import choose_device

HERE = Path(__file__).resolve().parent


def load(folder: Path, device: str) -> Saved:
    """The forecasters of a run folder."""
    models, series = load_forecasters(
        folder / "model.seq2seq.safetensors", choose_device(device)[0]
    )
    return Saved(
        [Group("Seq2Seq", "quantile head", models, f"mean of {len(models)} seeds")], series
    )


def main(config: EvaluateConfig) -> dict[str, Any]:
    return evaluate(
        config, HERE / "results", COINS, lambda folder: load(folder, config.device), draw_figures
    )


if __name__ == "__main__":
    entry(lambda: main(parse(EvaluateConfig)))
