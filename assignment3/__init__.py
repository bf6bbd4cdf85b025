"""Assignment 3: a Transformer encoder in TensorFlow forecasts hourly prices."""
