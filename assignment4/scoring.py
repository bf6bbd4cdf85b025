"""What the record of assignment 4 holds beside its backtest: the course's figures, which strategies are set beside each other, what
is forgotten of the coins, and the scales that an adapter needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assignment3.model import Forecaster, load_model
from common.cli import InputError
from common.forecast import Group, Windows
from common.prices import COINS, load_prices
from common.run import atomic_path, load_state, save_state, sha256
from common.windows import split

FORGETTING = {
    "coin_crps": {
        "unit": "ratio",
        "better": "lower",
        "reference": "CRPS on the coins' validation part after the adaptation over that before it; 1.0: nothing forgotten",
    },
}


def coins_of(base: Path) -> tuple[Windows, str]:
    """The coins that a base was trained on, for what an adaptation forgets; where they are not here, simulated ones, and which."""
    record = json.loads((base / "run.json").read_text(encoding="utf-8"))
    made, which = record["config"], "the base's own"
    try:
        where = Path(made["data"]) if made["data"] else None
        coins = load_prices(
            "csv"
            if record["source"] == "csv"
            else "cache"
            if record["source"] == "yahoo"
            else "simulated",
            where,
            COINS,
            made["period"],
            made["seed"],
            made["steps"],
        )
        if coins.provenance.get("sha256") != record["data"].get("sha256"):
            raise InputError("other prices")
    except InputError:
        coins, which = (
            load_prices("simulated", None, COINS),
            "simulated, because the base's own are not here",
        )
    parts = split(
        coins.contiguous(),
        made["context"],
        made["horizon"],
        made["test_steps"],
        made["validation_steps"],
    )
    return Windows(coins, parts, made["context"], made["horizon"]), which


def forgetting(
    coins: Windows, files: Sequence[Path], groups: Sequence[Group]
) -> list[dict[str, Any]]:
    """Rows of the error on the coins after each adaptation, with the coins' own scales put back, over that of its own base before it."""
    at = coins.parts.validation[:: max(len(coins.parts.validation) // 1000, 1)]
    size, ratios = (
        coins.changes(coins.parts.train).std(0),
        np.zeros((len(groups), len(groups[0].forecasters))),
    )
    for seed in range(ratios.shape[1]):
        base = Forecaster(load_model(files[seed % len(files)]))
        scales, before = base.fitted.get_weights(), coins.crps(base, size, at)
        for place, group in enumerate(groups):
            base.model.set_weights(group.forecasters[seed].arrays)
            base.fitted.set_weights(scales)
            ratios[place, seed] = coins.crps(base, size, at) / before
    return [
        {
            "protocol": "held-out",
            "split": "validation",
            "model": group.model,
            "variant": group.variant,
            "metric": "coin_crps",
            "value": float(row.mean()),
            "std": float(row.std(ddof=1)) if len(row) > 1 else None,
            "n_seeds": len(row),
            "params": group.forecasters[0].params,
        }
        for group, row in zip(groups, ratios, strict=True)
    ]


def answers(assigned: dict[str, Any]) -> list[tuple[str, str, np.ndarray, int]]:
    """What `assigned_rows` scores: every strategy, on the trained window and after it."""
    named = [
        (*name.rpartition(", ")[::2], forecast)
        for name, forecast in assigned.items()
        if ", " in name and not name.startswith("params")
    ]
    return [
        (strategy, where, forecast, assigned[f"params | {strategy}"])
        for strategy, where, forecast in named
    ]


def pairs(
    whole: Sequence[Group], less: Sequence[Group], rank: int
) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Every strategy against full fine-tuning, full fine-tuning against no adaptation; on every share the pretrained ones against scratch."""
    rows = {(group.model, group.variant): (group.model, group.mean) for group in (*whole, *less)}
    full = rows["full fine-tuning", "to convergence"]
    found = [
        (rows[group.model, group.variant], full)
        for group in whole
        if group.model not in ("full fine-tuning", "no adaptation")
    ]
    found.append((full, rows["no adaptation", "to convergence"]))
    for variant in dict.fromkeys(group.variant for group in (*less, *whole)):
        found += [
            (rows[name, variant], rows["from scratch", variant])
            for name in ("full fine-tuning", f"LoRA, rank {rank}")
        ]
    return found


def keep_adapter(checkpoint: Path, to: Path) -> None:
    """Copies the adapter of one training, both files."""
    for suffix in (".safetensors", ".json"):
        with atomic_path(to.with_suffix(suffix)) as temporary:
            shutil.copyfile(checkpoint.with_suffix(suffix), temporary)


def save_scales(
    path: Path,
    shared: Forecaster,
    windows: Windows,
    normalisation: str,
    files: Sequence[Path],
    adapters: dict[str, dict[str, Any]],
) -> None:
    """Writes what an adapter of this run needs beside its base: the target's series and scales, and the shrinkage of each adapter."""
    before, known = shared.fitted.get_weights(), windows.inputs(windows.parts.train)
    shared.fit_scales(
        *known, shared.targets(known[0], windows.future(windows.parts.train)), keep_shape=True
    )
    spread, deviation = shared.fitted.fitted_spread.numpy(), shared.fitted.fitted_deviation.numpy()
    shared.fitted.set_weights(before)
    bases = [{"run": file.parent.name, "file": file.name, "sha256": sha256(file)} for file in files]
    save_state(
        path,
        {
            "series": list(windows.prices.series),
            "normalisation": normalisation,
            "bases": bases,
            "spread": spread,
            "deviation": deviation,
            "shrink": {name: done["shrink"] for name, done in adapters.items()},
        },
    )


def load_scales(path: Path) -> dict[str, Any]:
    """What `save_scales` wrote. Raises InputError for anything else."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; an adapter needs the scales of the run that made it beside it (python assignment4/train.py)"
        )
    try:
        found = load_state(path)
        return {
            key: found[key]
            for key in ("series", "normalisation", "bases", "spread", "deviation", "shrink")
        }
    except Exception as error:  # safetensors and json raise their own on a damaged file
        raise InputError(
            f"{path}: not the scales of an assignment 4 run ({' '.join(str(error).split())[:150]})"
        ) from None
