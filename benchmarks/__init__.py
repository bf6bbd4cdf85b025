"""Speed and memory against peers and lower bounds: scripts, run by `make bench`."""
