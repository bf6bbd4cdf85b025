"""Final project: ViT-SEA, a mesh autoencoder and a causal Transformer whose field streams exchange state (Esmati et al., NeurIPS 2024).

    python final_project/simulate.py --flow cylinder                    # makes the data set (see its --help)
    python final_project/train.py --flow cylinder                       # that data set, else a small built-in one; ten minutes on two cores
    python final_project/train.py --flow cylinder --preset full         # every model of the ladder and every control, three seeds each
    torchrun --nproc_per_node=4 final_project/train.py --preset full

Stage one codes each frame; stage two predicts the next code. Trajectories are split for both; a rollout is given its first frame alone.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.cli import InputError, data_folder, entry, parse
from common.parallel import Follower, World
from common.report import compile_report
from common.run import Run, choose_device, plain, progress, tensors, write_arrays
from common.weights import parameters
from final_project.autoencoder import MeshAutoencoder
from final_project.config import MODELS, Config, temporal_config
from final_project.data import Flow, groups_of, load_flow, split
from final_project.figures import draw_figures
from final_project.models import build_autoencoder, build_temporal, encode, predict, save_networks
from final_project.protocols import (
    METRICS_INFO,
    Judge,
    attention_maps,
    coded,
    fit_and_score,
    pictures,
    print_table,
)
from final_project.sea import count
from final_project.training import train_autoencoder, train_temporal

HERE = Path(__file__).resolve().parent
EXCHANGES = (
    ("patch SEA", "patches, no exchange, matched"),
    ("SEA", "no exchange, matched"),
)  # each with its control


def load(config: Config) -> tuple[Flow, str]:
    """The flow, and the name of its source. Raises InputError for files that cannot be used."""
    path = config.data or data_folder() / f"{config.flow}.h5"
    if config.source == "simulated" or (
        config.source == "auto" and config.data is None and not path.exists()
    ):
        from final_project.simulate import built_in  # NGSolve is needed only here

        return built_in(
            config.flow, "smoke" if config.preset == "smoke" else "default", workers=2
        ), f"simulated-{config.flow}"
    if not path.exists():
        raise InputError(
            f"{path} does not exist; make it with simulate.py, give --data, or take --source simulated"
        )
    return load_flow(path), path.stem


def main(config: Config) -> dict[str, Any]:
    # data: trajectories split for both stages, checked before anything is written
    flow, source = load(config)
    groups, parts = groups_of(flow.field_names, config.groups), split(flow.parameters, config.seed)
    if unknown := set(config.models) - set(MODELS):
        raise InputError(f"--models {', '.join(sorted(unknown))}: allowed are {'; '.join(MODELS)}")
    judge, device = Judge(flow, config.grid, config.frames), choose_device(config.device)[0]
    for name in config.models:  # sizes that do not fit are refused here
        latents = (
            len(build_autoencoder(config, name == "as published", flow.coordinates, groups).index)
            * config.latents
        )
        sizes = len(groups), latents, flow.parameters.shape[1]
        count(temporal_config(config, name, *sizes), *sizes)
    fields, theta = flow.fields[parts.train, : judge.frames], flow.parameters[parts.train]
    known, known_theta = (
        flow.fields[parts.validation, : judge.frames],
        flow.parameters[parts.validation],
    )
    folder = config.out or HERE / "results" / f"{source}-{config.preset}"
    world = World.join(device)

    def train_all(run: Run | Follower) -> tuple[dict, dict]:
        """Both stages: {published: autoencoder}, {(model, seed): (autoencoder, temporal model, seconds)}."""
        coders: dict[bool, tuple[MeshAutoencoder, float]] = {}
        for published in sorted({False, *(name == "as published" for name in config.models)}):
            state = run.memo(
                f"autoencoder error, {'as published' if published else 'own'}",
                partial(
                    train_autoencoder,
                    config,
                    run,
                    published,
                    flow,
                    groups,
                    fields,
                    known,
                    device,
                    world,
                ),
            )
            model = build_autoencoder(config, published, flow.coordinates, groups)
            model.load_state_dict(tensors(state["weights"]))
            coders[published] = model.to(device).eval(), state["seconds"]
        found = {}
        for name, seed in [
            (name, seed)
            for name in config.models
            for seed in range(config.seeds)
            if config.stage != "autoencoder"
        ]:
            coder, seconds = coders[name == "as published"]
            state = run.memo(
                f"rollout error, {name}, seed {seed}",
                partial(
                    train_temporal,
                    config,
                    run,
                    name,
                    seed,
                    coder,
                    flow.coordinates,
                    fields,
                    theta,
                    known,
                    known_theta,
                    device,
                    world,
                ),
            )
            size, latents = encode(coder, fields[:1, :1]).shape[2:]
            temporal = build_temporal(config, name, size, latents, theta.shape[1])
            temporal.load_state_dict(tensors(state["weights"]))
            found[name, seed] = coder, temporal.to(device).eval(), seconds + state["seconds"]
        return coders, found

    if world.rank:  # the first process writes; the others only help it train
        world.wait()
        train_all(Follower(folder))
        world.leave()
        return {}
    with Run(config, folder, __file__, source, flow.provenance) as run:
        world.wait()
        run.note(
            device=device,
            processes=world.size,
            groups=[[flow.field_names[field] for field in group] for group in groups],
            nodes=len(flow.coordinates),
            frames=len(flow.time),
            split={name: len(rows) for name, rows in vars(parts).items() if name != "note"},
            split_note=parts.note,
            exchange="off: one field group" if len(groups) == 1 else "on",
        )
        for notice in (
            flow.provenance.get("notice"),
            parts.note,
            "one field group: no exchange" if len(groups) == 1 else None,
        ):
            if notice:
                print(f"notice: {notice}", file=sys.stderr)
        coders, trained = train_all(run)
        world.leave()

        # evaluation: the codes' own floor, then rollouts of every model and control on the test trajectories, once
        floors = {
            f"autoencoder{', as published' if published else ''}": (
                partial(coded, model, flow),
                parameters(model),
                seconds,
            )
            for published, (model, seconds) in coders.items()
        }
        scores, table = {}, []
        for name, (floor, weights, seconds) in floors.items():
            scores[name] = [run.memo(f"scores {name}", partial(judge.score, floor, parts))]
            table += judge.rows(name, scores[name], params=weights, seconds=round(seconds, 1))
        for name in config.baselines if trained else ():
            fitting = partial(
                fit_and_score,
                config,
                judge,
                parts,
                name,
                fields,
                theta,
                (known, known_theta),
                device,
            )
            kept = run.memo(f"scores {name}", fitting)
            scores[name] = [kept["scores"]]
            table += judge.rows(
                name, scores[name], params=kept["params"], seconds=round(kept["seconds"], 1)
            )
        for name in dict.fromkeys(name for name, _ in trained):
            runs = {seed: trained[name, seed] for seed in range(config.seeds)}
            scores[name] = [
                run.memo(
                    f"scores {name}, seed {seed}",
                    partial(judge.score, partial(predict, *pair[:2]), parts),
                )
                for seed, pair in progress(runs.items(), f"scores, {name}")
            ]
            table += judge.rows(
                name,
                scores[name],
                params=sum(parameters(each) for each in runs[0][:2]),
                seconds=round(float(np.mean([each[2] for each in runs.values()])), 1),
            )
        for ours, control in EXCHANGES:
            if {ours, control} <= set(scores):
                table += judge.exchange_rows(
                    f"{ours} over {control}", scores[ours], scores[control]
                )

        # record: the first model, and what the figures are made from
        write_arrays(folder / "mesh.npz", coordinates=flow.coordinates, triangles=judge.triangles)
        results = run.finish(table, METRICS_INFO)
        if trained:
            first = config.models[0]
            coder, temporal, _ = trained[first, 0]
            save_networks(
                folder,
                flow,
                groups,
                {key: value for key, value in plain(config).items() if key not in ("data", "out")},
                first,
                coder,
                temporal,
            )
            errors = {
                f"{name} | {part}": np.mean(
                    [run_[part]["squared_relative_l2"] for run_ in runs], 0, dtype=np.float32
                )
                for name, runs in scores.items()
                for part in runs[0]
            }
            write_arrays(folder / "errors.npz", **errors)
            shown = pictures(
                judge,
                parts,
                {name: partial(predict, *trained[name, 0][:2]) for name in config.models[:3]},
                errors[f"{first} | interpolation"].mean((1, 2)),
            )
            shown |= attention_maps(
                judge, int(parts.interpolation[0]), coder, temporal, groups, config.boxes
            )
            write_arrays(folder / "pictures.npz", **shown)
            draw_figures(folder)
            compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(results["rows"], folder)
    return results


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
