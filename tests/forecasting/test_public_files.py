"""Files as exporters write them load rightly with no option: times, series and values."""

from __future__ import annotations

import numpy as np
import pytest

from common.forecasting.prices import read_table
from tests.forecasting.public_files import PUBLIC


@pytest.mark.parametrize("shape", PUBLIC)
def test_a_published_shape_is_read_with_no_option(tmp_path, shape):
    public = PUBLIC[shape]
    read = read_table(public.write(tmp_path))
    assert list(read.series) == public.series
    np.testing.assert_array_equal(read.times, np.array(public.times, "datetime64[ns]"))
    np.testing.assert_array_equal(read.values, public.values)
    for words in public.words:
        assert words in read.provenance["read"]
