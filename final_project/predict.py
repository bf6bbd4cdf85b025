"""A rollout from your own state: the flow format, VTK files for ParaView, and a GIF.

python final_project/predict.py --data state.h5 --steps 200
python final_project/predict.py --data state.npz --frame -1 --parameters 150 0.01 0.05 --out rollout/
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

from common.cli import InputError, PathOrNone, entry, parse
from common.run import choose_device, newest_run
from final_project.data import Flow, load_flow, triangulate, write_flow
from final_project.export import write_vtk
from final_project.figures import draw_rollout
from final_project.models import load_networks, predict

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """Rolls a saved model out from a given state."""

    data: PathOrNone = None
    """a flow file on the run's mesh; one frame is enough"""
    run: PathOrNone = None
    """run folder (default: the newest finished one)"""
    out: PathOrNone = None
    """folder for rollout.h5, the VTK files and rollout.gif (default: rollout beside the data)"""
    trajectory: int = 0
    frame: int = 0
    """which frame is the state; negative: from the end"""
    parameters: tuple[float, ...] = ()
    """in place of those in the file"""
    steps: int = 200
    device: Literal["auto", "cpu", "cuda"] = "auto"


def main(config: Config) -> Flow:
    if config.data is None:
        raise InputError(
            "--data is needed: a flow file on the run's mesh whose frame is the state to start from"
        )
    if config.steps < 1:
        raise InputError(f"--steps {config.steps}: at least one step is needed")
    folder = config.run or newest_run(HERE / "results")
    known = load_flow(config.data, least_frames=1)
    if not (
        0 <= config.trajectory < len(known.fields)
        and -len(known.time) <= config.frame < len(known.time)
    ):
        raise InputError(
            f"--trajectory {config.trajectory} --frame {config.frame}: {config.data} has {len(known.fields)} trajectories of {len(known.time)} frames"
        )
    if config.parameters and len(config.parameters) != len(known.parameter_names):
        raise InputError(
            f"--parameters {' '.join(map(str, config.parameters))}: {len(known.parameter_names)} are needed: {', '.join(known.parameter_names)}"
        )
    device, _ = choose_device(config.device)
    autoencoder, temporal, about = load_networks(folder, known, device)
    first = known.fields[config.trajectory, config.frame]
    theta = (
        np.array(config.parameters) if config.parameters else known.parameters[config.trajectory]
    )
    path = np.concatenate(
        [first[None], predict(autoencoder, temporal, first[None], theta[None], config.steps)[0]]
    )
    flow = dataclasses.replace(
        known,
        fields=path[None],
        parameters=theta[None],
        time=known.time[config.frame] + about["step"] * np.arange(len(path)),
        provenance={
            "generator": f"{about['name']} of {folder.name}, from frame {config.frame} of {config.data.name}"
        },
    )
    out = config.out or config.data.parent / "rollout"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be written ({error.strerror}); give a writable folder"
        ) from None
    write_flow(out / "rollout.h5", flow)
    write_vtk(out, flow)
    draw_rollout(
        out / "rollout.gif",
        flow.coordinates,
        flow.triangles if len(flow.triangles) else triangulate(flow.coordinates),
        flow.time,
        flow.field_names,
        flow.fields[0],
        flow.provenance["generator"],
    )
    print(
        f"written: {out}: rollout.h5, flow.pvd, rollout.gif, {config.steps} steps of {about['step']:g}"
    )
    return flow


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
