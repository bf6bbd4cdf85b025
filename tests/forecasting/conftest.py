"""An empty data folder, no network, and a Yahoo that answers as a test says."""

from __future__ import annotations

import logging
import urllib.request
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yfinance

from tests.forecasting.price_tables import recorded


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty data folder, and no network."""
    if "realdata" not in request.keywords:
        monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path))
    for module, name in ((yfinance, "download"), (urllib.request, "urlopen")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("the network was asked"))
    return tmp_path


class Yahoo:
    """Takes the place of yfinance.download; one answer per call, the last one again and again.

    Exceptions are raised; a text is logged, as yfinance does, and an empty table returned.
    """

    def __init__(self) -> None:
        self.answers: list[pd.DataFrame | Exception | str | None] = []
        self.calls: list[dict[str, Any]] = []

    def download(self, tickers: list[str], **options: object) -> pd.DataFrame | None:
        self.calls.append({"tickers": tickers, **options})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            logging.getLogger("yfinance").error(answer)
            return recorded()[:0]
        return answer


@pytest.fixture
def yahoo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Yahoo:
    """Yahoo without a network."""
    stand_in = Yahoo()
    monkeypatch.setattr(yfinance, "download", stand_in.download)
    return stand_in
