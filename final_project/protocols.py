"""What is measured on rollouts of held-out trajectories: rows of metrics.json, and the arrays that figures are made from.

Shape letters: N trajectories, T frames, S steps, P nodes, F fields, K parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch

from final_project.autoencoder import MeshAutoencoder
from final_project.baselines import (
    FNO,
    Grid,
    OneStep,
    ParameterInterpolation,
    Persistence,
    PODLinear,
    Training,
    UNet,
)
from final_project.data import Flow, Split, triangulate
from final_project.metrics import bootstrap, bootstrap_ratio, score, time_to_correlation
from final_project.models import decode, encode
from final_project.patches import patch_table, places_of
from final_project.sea import Temporal

METRICS_INFO = {
    "relative_l2_squared": {
        "unit": "share",
        "better": "lower",
        "reference": "squared error over squared field, summed over nodes, mean over steps of a rollout from one frame (the official metric); 1: as large as the field, 0.01: 10 % of it",
    },
    "relative_l2_squared_low": {
        "unit": "share",
        "better": "lower",
        "reference": "lower end of its 95 % bootstrap interval over trajectories",
    },
    "relative_l2_squared_high": {
        "unit": "share",
        "better": "lower",
        "reference": "upper end of that interval",
    },
    "relative_l2": {
        "unit": "share",
        "better": "lower",
        "reference": "norm of the error over that of the field; 1: as large as the field",
    },
    "vrmse": {
        "unit": "sd",
        "better": "lower",
        "reference": "RMSE over the field's standard deviation over nodes (pooled over the trajectory); 1: predicting the mean",
    },
    "nrmse": {
        "unit": "share",
        "better": "lower",
        "reference": "RMSE over the field's RMS over the trajectory, safe near rest; 1: as large as the field",
    },
    "spectral_low": {
        "unit": "share",
        "better": "lower",
        "reference": "energy of the error below 4 cycles a height over the field's there; 1: band lost",
    },
    "spectral_middle": {
        "unit": "share",
        "better": "lower",
        "reference": "the same, 4 to 12 cycles a height",
    },
    "spectral_high": {
        "unit": "share",
        "better": "lower",
        "reference": "the same, above 12 cycles a height",
    },
    "time_to_correlation": {
        "unit": "time",
        "better": "higher",
        "reference": "until the correlation with the truth falls below 0.8; the whole horizon if it never does",
    },
    "divergence": {
        "unit": "ratio",
        "better": "lower",
        "reference": "RMS divergence over the RMS velocity gradient of the truth; the simulation itself is a row",
    },
    "mass_drift": {
        "unit": "share",
        "better": "lower",
        "reference": "absolute change of alpha's integral since the given frame; 0: conserved",
    },
    "bounds_violation": {
        "unit": "share",
        "better": "lower",
        "reference": "how far the worst node's alpha lies outside [0, 1]",
    },
    "exchange_ratio": {
        "unit": "ratio",
        "better": "lower",
        "reference": "squared relative L2 of SEA over that of no exchange with as many parameters, the same trajectories and seeds; 1: the exchange changes nothing",
    },
    "exchange_ratio_low": {
        "unit": "ratio",
        "better": "lower",
        "reference": "lower end of its 95 % paired bootstrap interval over trajectories",
    },
    "exchange_ratio_high": {
        "unit": "ratio",
        "better": "lower",
        "reference": "upper end of that interval",
    },
}
PARTS = ("interpolation", "gap", "extrapolation")
LONGER = "longer"  # the steps of the interpolation part beyond the trained horizon
HORIZONS = (1, 10, 50)
NAMES = {
    "relative_l2_squared": "squared_relative_l2",
    "relative_l2": "relative_l2",
    "vrmse": "vrmse_pooled",
    "nrmse": "pooled_nrmse",
    "spectral_low": "spectral_low",
    "spectral_middle": "spectral_middle",
    "spectral_high": "spectral_high",
    "divergence": "divergence",
    "mass_drift": "mass_drift",
    "bounds_violation": "bounds_violation",
}
Predict = Callable[
    [np.ndarray, np.ndarray, int], np.ndarray
]  # first frames (N, P, F), parameters (N, K), steps -> fields (N, S, P, F)
Scores = dict[str, dict[str, np.ndarray]]  # {part: {metric: (N, S, F) or (N, S)}}


class Judge:
    """Scores rollouts of one flow; `frames` is the trained horizon."""

    def __init__(self, flow: Flow, grid: tuple[int, int], frames: int):
        self.flow, self.frames = flow, min(frames, len(flow.time))
        self.triangles = flow.triangles if len(flow.triangles) else triangulate(flow.coordinates)
        self.grid = Grid(flow.coordinates, self.triangles, *grid)

    def compare(
        self, predicted: np.ndarray, truth: np.ndarray, first: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Every metric of fields (N, S, P, F) against the truth after frames (N, P, F), float32 to keep; one trajectory at a time."""
        found = [
            score(
                predicted[n : n + 1],
                truth[n : n + 1],
                first[n : n + 1],
                self.flow.field_names,
                self.flow.coordinates,
                self.triangles,
                self.grid.to_grid,
                self.grid.aspect,
            )
            for n in range(len(truth))
        ]
        return {
            name: np.concatenate([each[name] for each in found]).astype(np.float32)
            for name in found[0]
        }

    def score(self, predict: Predict, parts: Split) -> Scores:
        """Rollouts from the first frame of every test trajectory over all its frames."""
        found: Scores = {}
        for part in PARTS:
            rows = getattr(parts, part)
            if not len(rows):
                continue
            fields = self.flow.fields[rows]
            predicted = np.nan_to_num(
                predict(fields[:, 0], self.flow.parameters[rows], fields.shape[1] - 1),
                nan=1e6,
                posinf=1e6,
                neginf=-1e6,
            )
            scores = self.compare(np.clip(predicted, -1e6, 1e6), fields[:, 1:], fields[:, 0])
            found[part] = {name: values[:, : self.frames - 1] for name, values in scores.items()}
            if part == PARTS[0] and fields.shape[1] > self.frames:
                found[LONGER] = {
                    name: values[:, self.frames - 1 :] for name, values in scores.items()
                }
        return found

    def rows(self, model: str, seeds: list[Scores], **fields: Any) -> list[dict[str, Any]]:
        """Rows of metrics.json: each part, pooled over fields and of each, mean and standard deviation over seeds."""
        table: list[dict[str, Any]] = []
        dt = float(self.flow.time[1] - self.flow.time[0])
        for part in seeds[0]:
            for column, series in enumerate((*self.flow.field_names, None)):
                base = {
                    "protocol": "held-out",
                    "split": "test",
                    "model": model,
                    "variant": part,
                    "series": series,
                    "n_seeds": len(seeds),
                    **fields,
                }

                def each(
                    name: str, part: str = part, column: int = column, series: str | None = series
                ) -> np.ndarray:
                    """(seeds, N, S)"""
                    values = np.stack([scores[part][name] for scores in seeds])
                    return (
                        np.abs(values)
                        if values.ndim == 3
                        else values.mean(-1)
                        if series is None
                        else values[..., column]
                    )

                def add(metric: str, values: np.ndarray, base: dict = base, **more: Any) -> None:
                    runs = values.reshape(len(values), -1).mean(1, dtype=np.float64)
                    table.append(
                        base
                        | {
                            "metric": metric,
                            "value": float(runs.mean()),
                            "std": float(runs.std(ddof=1)) if len(runs) > 1 else None,
                        }
                        | more
                    )

                for metric, name in NAMES.items():
                    if name in seeds[0][part] and (
                        seeds[0][part][name].ndim == 3 or series is None
                    ):
                        add(metric, each(name))
                errors = each("squared_relative_l2")
                for horizon in HORIZONS:
                    if horizon <= errors.shape[2] and part != LONGER:
                        add("relative_l2_squared", errors[..., horizon - 1], horizon=horizon)
                for end, value in zip(
                    ("low", "high"), bootstrap(errors.mean((0, 2), dtype=np.float64)), strict=True
                ):
                    table.append(
                        base
                        | {
                            "metric": f"relative_l2_squared_{end}",
                            "value": value,
                            "n_seeds": len(seeds),
                        }
                    )
                if part != LONGER:
                    times = np.stack(
                        [
                            time_to_correlation(scores[part]["correlation"], 0.8, dt)
                            for scores in seeds
                        ]
                    )  # (seeds, N, F)
                    add(
                        "time_to_correlation",
                        times.mean(-1) if series is None else times[..., column],
                    )
        return table

    def exchange_rows(
        self, name: str, ours: list[Scores], control: list[Scores]
    ) -> list[dict[str, Any]]:
        """The error of SEA over that of its control by field and part, with a paired interval, as model `name`: whether the exchange helps."""
        table = []
        for part in ours[0]:
            for column, series in enumerate((*self.flow.field_names, None)):
                means: list[Any] = [
                    np.mean(
                        [scores[part]["squared_relative_l2"] for scores in runs],
                        axis=(0, 2),
                        dtype=np.float64,
                    )
                    for runs in (ours, control)
                ]  # (N, F) each
                a, b = (
                    values.mean(1) if series is None else values[:, column] for values in means
                )  # (N,)
                base = {
                    "protocol": "held-out",
                    "split": "test",
                    "model": name,
                    "variant": part,
                    "series": series,
                    "n_seeds": len(ours),
                }
                low, high = bootstrap_ratio(a, b)
                for metric, value in (
                    ("exchange_ratio", a.mean() / b.mean()),
                    ("exchange_ratio_low", low),
                    ("exchange_ratio_high", high),
                ):
                    table.append(base | {"metric": metric, "value": float(value)})
        return table

    def probe(self, rows: np.ndarray) -> tuple[int, int]:
        """(node, field) that moves the most: of alpha, else of v, else of the first field, over trajectories `rows`."""
        names = self.flow.field_names
        field = next((names.index(name) for name in ("alpha", "v") if name in names), 0)
        return int(self.flow.fields[rows, :, :, field].std(1).mean(0).argmax()), field


def coded(
    autoencoder: MeshAutoencoder, flow: Flow, first: np.ndarray, theta: np.ndarray, steps: int
) -> np.ndarray:
    """The true frames, coded and decoded: what no rollout can beat."""
    rows = [int(np.flatnonzero((flow.fields[:, 0] == frame).all((1, 2)))[0]) for frame in first]
    return decode(autoencoder, encode(autoencoder, flow.fields[rows, 1 : steps + 1]))


def fit_and_score(
    config: Any,
    judge: Judge,
    parts: Split,
    name: str,
    fields: np.ndarray,
    theta: np.ndarray,
    known: tuple[np.ndarray, np.ndarray],
    device: str,
) -> dict[str, Any]:
    """Fits one control on training trajectories and scores it: {"scores", "seconds", "params"}."""
    start, training = time.perf_counter(), Training(steps=config.baseline_steps, seed=config.seed)
    controls: dict[str, Callable[[], Any]] = {
        "persistence": Persistence,
        "parameter interpolation": ParameterInterpolation,
        "POD + linear": PODLinear,
        "FNO": partial(OneStep, FNO, judge.grid, training, device),
        "U-Net": partial(OneStep, UNet, judge.grid, training, device),
    }
    model = controls[name]()
    model.fit(fields, theta, known)
    seconds = time.perf_counter() - start
    return {
        "scores": judge.score(model.rollout, parts),
        "seconds": seconds,
        "params": model.parameters_ if isinstance(model, OneStep) else None,
    }


def pictures(
    judge: Judge, parts: Split, predicts: dict[str, Predict], errors: np.ndarray, frames: int = 50
) -> dict[str, np.ndarray]:
    """Arrays of one held-out trajectory, that with the median error (N,) of the first model: fields float16 at some frames, probes at all."""
    flow, row = judge.flow, int(parts.interpolation[np.argsort(errors)[len(errors) // 2]])
    node, field = judge.probe(parts.interpolation)
    count = len(flow.time)
    shown = np.unique(np.append(np.arange(0, count, max(1, count // frames)), judge.frames - 1))
    told = ", ".join(
        f"{name} {value:.4g}"
        for name, value in zip(flow.parameter_names, flow.parameters[row], strict=True)
    )
    found = {
        "coordinates": flow.coordinates,
        "triangles": judge.triangles,
        "time": flow.time,
        "frames": shown,
        "field_names": np.array(flow.field_names),
        "trajectory": np.array(f"trajectory {row}{': ' + told if told else ''}"),
        "probe_name": np.array(
            f"{flow.field_names[field]} at ({flow.coordinates[node][0]:.2f}, {flow.coordinates[node][1]:.2f})"
        ),
    }
    truth = flow.fields[row]
    for name, path in {
        "truth": truth,
        **{
            name: np.concatenate(
                [truth[:1], predict(truth[None, 0], flow.parameters[[row]], count - 1)[0]]
            )
            for name, predict in predicts.items()
        },
    }.items():
        path = np.nan_to_num(np.clip(path, -6e4, 6e4))
        found[f"fields | {name}"] = path[shown].astype(np.float16)
        found[f"probe | {name}"] = path[:, node, field].astype(np.float32)
    return found


def attention_maps(
    judge: Judge,
    row: int,
    autoencoder: MeshAutoencoder,
    temporal: Temporal,
    groups: tuple[tuple[int, ...], ...],
    boxes: tuple[int, int],
) -> dict[str, np.ndarray]:
    """Exchange attention on a true trajectory, mean over heads and blocks, float16; nothing where there is no exchange.

    Tokens are frames: (pairs, T, T). Tokens are patches: (pairs, 2 rows - 1, 2 columns - 1), the mean weight on a patch so far away, over frames too.
    """
    z = encode(autoencoder, judge.flow.fields[[row], : judge.frames - 1])
    theta = torch.from_numpy(judge.flow.parameters[[row]]).float().to(z.device)
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    for (_, reader, source), weights in temporal.exchange_maps(z, theta).items():
        found.setdefault((reader, source), []).append(weights.flatten(0, 1).mean(0).cpu().numpy())
    if not found:
        return {}
    maps = np.stack([np.mean(each, 0) for each in found.values()])
    if temporal.config.patches:
        coordinates = judge.flow.coordinates
        places = places_of(coordinates, patch_table(coordinates, *boxes), *boxes).astype(
            int
        )  # (Q, 2)
        column, row_ = np.moveaxis(
            places[None] - places[:, None] + np.array(boxes) - 1, 2, 0
        )  # (Q, Q) each: how far away
        sums, counts = (
            np.zeros((len(maps), 2 * boxes[1] - 1, 2 * boxes[0] - 1)),
            np.zeros((2 * boxes[1] - 1, 2 * boxes[0] - 1)),
        )
        np.add.at(counts, (row_, column), 1)
        for total, weights in zip(sums, maps, strict=True):
            np.add.at(total, (row_, column), weights)
        maps = sums / np.maximum(counts, 1)
    names = [
        "".join(judge.flow.field_names[field] + " " for field in group).strip().replace(" ", ", ")
        for group in groups
    ]
    return {
        "attention": maps.astype(np.float16),
        "tokens": np.array("patches" if temporal.config.patches else "frames"),
        "pairs": np.array(
            [f"({names[reader]}) looks at ({names[source]})" for reader, source in found]
        ),
    }


def print_table(
    rows: Iterable[dict[str, Any]], folder: Any, shown: Iterable[str] = (*PARTS, LONGER)
) -> None:
    """Squared relative L2 of whole rollouts, the best first."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if (
            row["split"] == "test"
            and row["metric"] == "relative_l2_squared"
            and row["series"] is None
            and row.get("horizon") is None
        ):
            found.setdefault(row["model"], {})[row["variant"]] = row["value"]
    parts = [part for part in shown if any(part in values for values in found.values())]
    print(f"\n{'squared relative L2':32}" + "".join(f"{part:>15}" for part in parts))
    for model, values in sorted(found.items(), key=lambda item: item[1].get(parts[0], np.inf)):
        print(f"{model:32}" + "".join(f"{values.get(part, np.nan):15.5g}" for part in parts))
    print(f"\nwritten: {folder}")
