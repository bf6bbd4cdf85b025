"""DDIM diffusion on images with a Transformer in place of the U-Net."""
