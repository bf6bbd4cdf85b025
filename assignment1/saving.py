"""Fitted transformers as settings and arrays, without pickle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, TypeAlias

import numpy as np

from common.files import JsonObject

Arrays: TypeAlias = dict[str, np.ndarray]


class Saved:
    """Writes a fitted transformer as JSON settings and arrays, and reads it back (no pickle)."""

    n_features_in_: int  # of scikit-learn, as get_params
    get_params: Callable[..., dict[str, object]]

    def to_file(self) -> tuple[JsonObject, Arrays]:
        """Settings and arrays, enough for `from_file`; lists of arrays are numbered."""
        settings: JsonObject = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if not isinstance(value, np.ndarray)
        }
        settings["columns"] = self.n_features_in_
        arrays: Arrays = {}
        for name, value in vars(self).items():
            if not name.endswith("_"):
                continue
            if isinstance(value, np.ndarray):
                arrays[name] = value
            elif isinstance(value, list):
                arrays |= {f"{name}{number}": item for number, item in enumerate(value)}
        return settings, arrays

    @classmethod
    def from_file(cls, settings: JsonObject, arrays: Arrays) -> Self:
        """The fitted transformer again."""
        given: JsonObject = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in settings.items()
            if name != "columns"
        }
        if "table_" in arrays:
            given["codebook"] = arrays["table_"]
        model = cls(**given)
        model.n_features_in_ = settings["columns"]

        numbered: dict[str, dict[int, np.ndarray]] = {}
        for name, array in arrays.items():
            stem = name.rstrip("0123456789")
            if stem == name:
                setattr(model, name, array)
            else:
                numbered.setdefault(stem, {})[int(name.removeprefix(stem))] = array
        for stem, items in numbered.items():
            setattr(model, stem, [items[number] for number in sorted(items)])
        return model
