"""Tests: the mathematics by system, the house rules, and the slow ones."""

import os

# before numpy, torch and TensorFlow are imported: networks this small wait for a second thread
# longer than it helps them, and two test processes share two cores
for _name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(_name, "1")
