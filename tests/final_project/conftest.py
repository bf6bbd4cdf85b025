"""Loads torch before NGSolve: torch's eigenvalues crash on the MKL that NGSolve brings along."""

import torch  # noqa: F401
