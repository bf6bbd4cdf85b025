"""Which trajectories a run was trained on or chosen by, told by the digests of their frames.

Shape letters: N trajectories, T frames, P nodes, F fields.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from common.cli import InputError
from common.files import write_arrays
from final_project.data import Flow, Split
from final_project.raw import readable

SEEN = "seen.npz"
LEAST_SHARE = 0.5  # of a trajectory's steps: several trajectories may begin in the same state
MIXER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no two digests become one


def digests(fields: np.ndarray) -> np.ndarray:
    """A number uint64 (N, T) for each frame of fields (N, T, P, F), equal for equal frames.

    Of the frame in float32, so that it does not matter how the file stores the numbers.
    """
    count, frames = fields.shape[:2]
    single = (np.ascontiguousarray(frame, np.float32) for path in fields for frame in path)
    whole = b"".join(hashlib.blake2b(frame.tobytes(), digest_size=8).digest() for frame in single)
    return np.frombuffer(whole, np.uint64).reshape(count, frames)


def steps_of(frames: np.ndarray) -> np.ndarray:
    """A number uint64 (N, T - 1) for each two successive frames of digests (N, T).

    Single frames are shared by waves of several speeds; a step of one belongs to it alone.
    """
    return frames[:, :-1] * MIXER + frames[:, 1:]  # (wraps around)


def save_seen(folder: Path, flow: Flow, parts: Split) -> None:
    """Writes the digests of the frames of the training and the validation part."""
    rows = np.concatenate([parts.train, parts.validation])
    write_arrays(folder / SEEN, frames=digests(flow.fields[rows]))


def seen_rows(folder: Path, flow: Flow) -> np.ndarray | None:
    """Whether a run saw each trajectory in training or choice, bool (N,); None: it is not known.

    Raises InputError for a damaged file.
    """
    path = folder / SEEN
    if not path.exists():
        return None
    with readable(path), np.load(path, allow_pickle=False) as file:
        known = file["frames"]
    if known.dtype != np.uint64:
        raise InputError(f"{path} is damaged: frames are {known.dtype}")
    return np.isin(steps_of(digests(flow.fields)), steps_of(known)).mean(1) >= LEAST_SHARE
