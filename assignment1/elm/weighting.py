"""sample_weight and class_weight, as scikit-learn's classifiers understand them.

Shape letters: n rows, p inputs, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight

ClassWeight: TypeAlias = Literal["balanced"] | Mapping[object, float] | None
Checked: TypeAlias = Any  # what scikit-learn's validate_data returns: an array or a sparse matrix


def weighted_rows(
    X: Checked, y: Checked, sample_weight: npt.ArrayLike | None, class_weight: ClassWeight
) -> tuple[Checked, np.ndarray, np.ndarray | None]:
    """The rows X (n, p), y (n,) of positive weight and their weights float64 (n,).

    A row's weight is its own times that of its class; None where neither is given. "balanced" gives
    all classes the same total: n / (k n_class) a row, with the rows' own weights in place of
    counts. Raises ValueError for weights that are negative, not finite or not one per row.
    """
    if sample_weight is None and class_weight is None:
        return X, y, None
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if class_weight is not None:
        classes, label = np.unique(y, return_inverse=True)
        own = None if sample_weight is None else weight
        factors = compute_class_weight(class_weight, classes=classes, y=y, sample_weight=own)
        weight = weight * factors[label]
    keep = weight > 0
    if keep.all():
        return X, y, weight  # no copy of rows that may be a file mapped into memory
    return X[keep], y[keep], weight[keep]
