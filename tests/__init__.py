"""Tests: the mathematics by system, the house rules, and the slow ones."""
