"""Reports: what of a large run they are given."""

from __future__ import annotations

from common.report import index_of, of_first_series
from common.results import SHOWN_SERIES


def row(series: str | None, metric: str = "rmse", model: str = "A") -> dict[str, object]:
    return {"series": series, "metric": metric, "model": model}


def test_a_report_gets_the_rows_of_the_first_series_and_all_that_are_pooled():
    names = [f"S{s}" for s in range(SHOWN_SERIES + 5)]
    metrics = {"run": {"a": 1}, "rows": [row(None), *(row(name) for name in names), row(None)]}
    shown = of_first_series(metrics)
    assert shown["series_left_out"] == 5
    assert [one["series"] for one in shown["rows"]] == [None, *names[:SHOWN_SERIES], None]
    assert shown["run"] == {"a": 1}
    few = {"rows": [row(None), row("S0")]}
    assert of_first_series(few) == {**few, "series_left_out": 0}


def test_the_index_names_the_rows_of_each_metric_and_model():
    rows = [row(None), row("S0", "mae"), row("S0"), row("S0", "rmse", "B")]
    assert index_of(rows) == {"rmse": {"A": [0, 2], "B": [3]}, "mae": {"A": [1]}}
