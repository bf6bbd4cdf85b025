"""A rollout from your own state: the flow format, VTK files for ParaView, and a GIF.

    python final_project/predict.py --data state.h5 --steps 200
    python final_project/predict.py --data state.npz --frame -1 --parameters 150 0.01 0.05

Seconds; no truth is needed, and nothing is scored.
"""

from __future__ import annotations

from common.cli import entry, read_options
from final_project.config import PredictConfig

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(PredictConfig)

import dataclasses
from pathlib import Path

import numpy as np

from common.cli import InputError
from common.machine import choose_device
from common.run import SavedRun, announce
from final_project.checkpoint import About, load_networks, read_about
from final_project.data import Flow, load_flow, write_flow
from final_project.evaluate import NEEDED, SAME_STEP, Recorded, check_units, with_parameters
from final_project.export import write_vtk
from final_project.figures import draw_rollout
from final_project.mesh import triangulate

HERE = Path(__file__).resolve().parent


def given_state(config: PredictConfig, path: Path, run: SavedRun, about: About) -> Flow:
    """The trajectory that holds the state, with the parameters that it has or is given.

    Raises InputError for a frame that is not there and for another number of parameters.
    """
    flow = load_flow(path, least_frames=1, reading=Recorded.of(run).reading)
    announce(flow.provenance)
    trajectories, frames = flow.fields.shape[:2]
    if config.trajectory >= trajectories or not -frames <= config.frame < frames:
        raise InputError(
            f"--trajectory {config.trajectory} --frame {config.frame}: {path} has "
            f"{trajectories} trajectories of {frames} frames"
        )
    if frames > 1 and abs(flow.step - about.step) > SAME_STEP * about.step:
        print(
            f"notice: the run's time step is {about.step:g}, the data's {flow.step:g}; the "
            f"rollout has steps of {about.step:g}"
        )
    rows = [config.trajectory]
    single = dataclasses.replace(flow, fields=flow.fields[rows], parameters=flow.parameters[rows])
    return with_parameters(single, config.parameters, about)


def main(config: PredictConfig) -> Flow:
    """Rolls out, writes the files, and returns the rollout."""
    # Run and state:
    if config.data is None:
        raise InputError("--data is needed: a flow file whose frame is the state to start from")
    run = SavedRun.open(config.run, HERE / "results", NEEDED)
    state = given_state(config, config.data, run, read_about(run.folder))
    device = choose_device(config.device).name
    saved = load_networks(run.folder, state, device)

    # Rollout:
    first = state.fields[:, config.frame]  # (1, P, F)
    units = saved.surrogate.autoencoder.units
    check_units(first, state.field_names, units, config.data)
    rollout = saved.surrogate.predict(first, state.parameters, config.steps)  # (1, S, P, F)
    bounded = units.bounded(rollout)
    fields = np.concatenate([first[:, None], bounded], axis=1)  # (1, S + 1, P, F)
    source = f"{saved.name} of {run.folder.name}, from frame {config.frame} of {config.data.name}"
    flow = dataclasses.replace(
        state,
        fields=fields.astype(first.dtype),
        time=state.time[config.frame] + saved.step * np.arange(config.steps + 1),
        provenance={"generator": source},
    )

    # Files:
    out = config.folder
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be written ({error.strerror}); give a writable folder"
        ) from None
    write_flow(out / "rollout.h5", flow)
    write_vtk(out, flow)
    triangles = flow.triangles if len(flow.triangles) else triangulate(flow.coordinates)
    draw_rollout(
        out / "rollout.gif",
        flow.coordinates,
        triangles,
        flow.time,
        flow.field_names,
        flow.fields[0],
        source,
    )
    print(
        f"written: {out}: rollout.h5, flow.pvd, rollout.gif, {config.steps} steps of {saved.step:g}"
    )
    return flow


if __name__ == "__main__":
    entry(main, OPTIONS)
