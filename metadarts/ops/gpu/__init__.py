"""Shared parts of the Triton kernels: launching and recording, tiles, types, sums over programs."""
