"""The arrays of a run that its figures are made from.

Shape letters: N trajectories, T frames, S steps, P nodes, F fields, Q patches, M pairs of groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from final_project.evaluation import Judge, Predict, Scored
from final_project.factory import Groups
from final_project.patches import patch_table, places_of
from final_project.stride import dominant_period, movie_frames
from final_project.surrogate import Surrogate, encode

Arrays = dict[str, np.ndarray]
PICTURES = 50  # frames of a trajectory that are drawn
LARGEST = 6e4  # fields are stored as float16, in deviations from the mean


def error_arrays(scored: Sequence[Scored]) -> Arrays:
    """Squared relative L2 of every model and part, mean over seeds: (N, S, F) each."""
    arrays: Arrays = {}
    for each in scored:
        for part in each.seeds[0]:
            errors = each.stacked(part, "squared_relative_l2")  # (seeds, N, S, F)
            arrays[f"{each.model} | {part}"] = errors.mean(0, dtype=np.float32)
    return arrays


def picture_arrays(
    judge: Judge, test: np.ndarray, models: Mapping[str, Predict], errors: np.ndarray
) -> Arrays:
    """Fields at some frames of one trajectory, and a probe's values at all of them.

    Fields are float16 and in units of the training fields: field = mean + scale * stored. The
    trajectory is that of the rows `test` with the median of the errors (N,) of the first model.
    """
    flow = judge.flow
    row = int(test[np.argsort(errors)[len(errors) // 2]])
    node, field = probe(judge, test)
    count = len(flow.time)
    period = dominant_period(judge.units.centred(flow.fields[row, :, node])[:, field])
    frames = np.union1d(movie_frames(count, period, PICTURES), judge.frames - 1)

    # what is shown, in words:
    named = zip(flow.parameter_names, flow.parameters[row], strict=True)
    parameters = ", ".join(f"{name} {value:.4g}" for name, value in named)
    trajectory = f"trajectory {row}: {parameters}" if parameters else f"trajectory {row}"
    x, y = flow.coordinates[node]
    arrays = {
        "coordinates": flow.coordinates,
        "triangles": judge.triangles,
        "time": flow.time,
        "frames": frames,
        "field_names": np.array(flow.field_names),
        "mean": judge.units.mean,
        "scale": judge.units.scale,
        "trajectory": np.array(trajectory),
        "probe_name": np.array(f"{flow.field_names[field]} at ({x:.2f}, {y:.2f})"),
    }

    # the truth and every model's rollout from its first frame:
    truth = flow.fields[row]  # (T, P, F)
    paths = {"truth": truth}
    for name, predict in models.items():
        rollout = predict(truth[None, 0], flow.parameters[[row]], count - 1)[0]
        paths[name] = np.concatenate([truth[:1], rollout])
    for name, path in paths.items():
        normal = judge.units.centred(judge.units.bounded(path))
        normal = np.clip(normal, -LARGEST, LARGEST)
        arrays[f"fields | {name}"] = normal[frames].astype(np.float16)
        signal = normal[:, node, field] * judge.units.scale[field] + judge.units.mean[field]
        arrays[f"probe | {name}"] = signal
    return arrays


def probe(judge: Judge, rows: np.ndarray) -> tuple[int, int]:
    """(node, field) that moves the most over the rows: of alpha, of v or of the first field."""
    names = judge.flow.field_names
    candidates = [names.index(name) for name in ("alpha", "v") if name in names]
    field = candidates[0] if candidates else 0
    normal = [judge.units.centred(judge.flow.fields[row])[..., field] for row in rows]
    deviations = np.mean([each.std(0) for each in normal], 0)  # (P,)
    return int(deviations.argmax()), field


def attention_arrays(
    judge: Judge, row: int, surrogate: Surrogate, groups: Groups, boxes: tuple[int, int]
) -> Arrays:
    """Exchange attention on a true trajectory, mean over heads and blocks, float16.

    Where tokens are frames: (M, T, T). Where tokens are patches: the mean weight by rows and
    columns between two patches, over frames too, (M, 2 rows - 1, 2 columns - 1). Empty where there
    is no exchange.
    """
    flow = judge.flow
    z = encode(surrogate.autoencoder, flow.fields[[row], : judge.frames - 1])
    theta = torch.from_numpy(flow.parameters[[row]]).float().to(z.device)

    # mean over heads, then over blocks:
    blocks: dict[tuple[int, int], list[np.ndarray]] = {}
    for (_, reader, source), weights in surrogate.temporal.exchange_maps(z, theta).items():
        mean = weights.flatten(0, 1).mean(0).cpu().numpy()
        blocks.setdefault((reader, source), []).append(mean)
    if not blocks:
        return {}
    maps = np.stack([np.mean(each, 0) for each in blocks.values()])  # (M, T, T) or (M, Q, Q)

    of_patches = surrogate.temporal.config.patches > 0
    if of_patches:
        table = patch_table(flow.coordinates, *boxes)
        maps = by_distance(maps, places_of(flow.coordinates, table, *boxes), boxes)

    fields = [", ".join(flow.field_names[field] for field in group) for group in groups]
    pairs = [f"({fields[reader]}) looks at ({fields[source]})" for reader, source in blocks]
    return {
        "attention": maps.astype(np.float16),
        "tokens": np.array("patches" if of_patches else "frames"),
        "pairs": np.array(pairs),
    }


def by_distance(maps: np.ndarray, places: np.ndarray, boxes: tuple[int, int]) -> np.ndarray:
    """Weights between patches (M, Q, Q) -> their mean by columns and rows between the two.

    places: column and row (Q, 2) of each patch. Returns (M, 2 rows - 1, 2 columns - 1).
    """
    columns, rows = boxes
    place = places.astype(int)
    away = place[None] - place[:, None] + np.array(boxes) - 1  # (Q, Q, 2), from 0 on
    column, row = np.moveaxis(away, 2, 0)  # (Q, Q) each

    counts = np.zeros((2 * rows - 1, 2 * columns - 1))
    np.add.at(counts, (row, column), 1)
    sums = np.zeros((len(maps), *counts.shape))
    for total, weights in zip(sums, maps, strict=True):
        np.add.at(total, (row, column), weights)
    return sums / np.maximum(counts, 1)
