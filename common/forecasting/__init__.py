"""Price histories, windows, baselines and backtests: what assignments 2, 3 and 4 share."""
