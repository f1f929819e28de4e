"""What the CPU kernels are written in: vectors of lanes, and a way to run a kernel on torch's own threads.

Needs Numba, which brings its compiler along; import it only where a CPU kernel is about to run.
"""
