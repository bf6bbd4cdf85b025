"""Files are written under a temporary name and renamed, and never pickled."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from common.cli import InputError

if TYPE_CHECKING:
    import torch

JsonObject: TypeAlias = dict[str, Any]  # a JSON object: strings to JSON values
StateDict: TypeAlias = "dict[str, torch.Tensor]"  # the weights of a torch network
State: TypeAlias = Any  # nested dicts and lists of arrays, tensors, numbers, strings and None


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder and renames it to `path` when the block ends well.

    Raises InputError where the system refuses to write; the temporary file is removed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Writes JSON atomically. Raises ValueError for a number that is not finite: JSON has none."""
    # piece by piece: the whole text of many rows takes ten times its length in memory
    encoder = json.JSONEncoder(indent=1, allow_nan=False, ensure_ascii=False)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(encoder.iterencode(value))
        file.write("\n")


def read_json(path: Path) -> JsonObject:
    """Reads a JSON object. Raises InputError where the file is missing, damaged or no object."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no readable JSON object; name another folder or remove it")
    return value


def write_arrays(path: Path, **arrays: object) -> None:
    """Writes a compressed .npz atomically."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]  # stub: narrower


def sha256(path: Path) -> str:
    """Digest of a file, or of the sorted relative names and sizes of a folder's files."""
    path = Path(path)
    if not path.is_dir():
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\n".encode())
    return digest.hexdigest()


def save_state(path: Path, state: State) -> None:
    """Writes nested dicts and lists of arrays, tensors, numbers, strings and None atomically.

    The file is one safetensors file: the arrays under numbers, the nesting as JSON metadata.
    """
    arrays: dict[str, np.ndarray] = {}

    def skeleton_of(value: State) -> JsonObject:
        if isinstance(value, dict):
            return {"dict": [[key, skeleton_of(item)] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {"list": [skeleton_of(item) for item in value]}
        if hasattr(value, "detach"):  # a torch tensor, without importing torch
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray):
            name = str(len(arrays))
            arrays[name] = np.ascontiguousarray(value)
            return {"array": [name, list(value.shape)]}
        return {"value": value.item() if isinstance(value, np.generic) else value}

    skeleton = json.dumps(skeleton_of(state))
    with atomic_path(path) as temporary:
        content = save(arrays or {"none": np.zeros(1)}, metadata={"skeleton": skeleton})
        temporary.write_bytes(content)


def load_state(path: Path) -> State:
    """Reads what save_state wrote, with numpy arrays. Raises InputError for a damaged file."""
    try:
        with safe_open(path, framework="numpy") as file:
            skeleton = json.loads(file.metadata()["skeleton"])
        arrays = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged; --overwrite begins the run anew") from None

    def fill(node: JsonObject) -> State:
        ((kind, value),) = node.items()
        if kind == "dict":
            return {key: fill(item) for key, item in value}
        if kind == "list":
            return [fill(item) for item in value]
        if kind == "array":
            name, shape = value
            return arrays[name].reshape(shape)
        return value

    return fill(skeleton)


def tensors(state: State) -> State:
    """The nested state with torch tensors in place of numpy arrays."""
    from torch.utils.data import default_convert

    return default_convert(state)
