"""Final project: State-Exchange Attention (ViT-SEA) on simulated flows."""
