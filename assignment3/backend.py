"""Keras on TensorFlow, imported without the lines that TensorFlow's C++ writes to stderr whatever its log level is."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_stderr, _nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
try:
    import keras
    import tensorflow as tf
    from keras import layers, ops
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nowhere)

tf.get_logger().setLevel(
    "ERROR"
)  # many networks are traced one after the other, of which it would warn

__all__ = ["keras", "layers", "ops", "tf"]
