"""Keras on TensorFlow, imported without what TensorFlow's C++ writes to stderr at any log level."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_stderr = os.dup(2)
_null = os.open(os.devnull, os.O_WRONLY)
os.dup2(_null, 2)
try:
    import keras
    import tensorflow as tf
    from keras import layers, ops
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_null)

tf.get_logger().setLevel("ERROR")  # else it warns of the many networks that are traced in turn

__all__ = ["keras", "layers", "ops", "tf"]
