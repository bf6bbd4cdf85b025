"""Extreme learning machines and multilayer perceptrons on VQ-VAE codes of faces."""
