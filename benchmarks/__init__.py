"""Speed and accuracy figures; each is run as ``python -m benchmarks.NAME``."""
