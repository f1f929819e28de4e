"""Building blocks of the CPU kernels: vectors of lanes, and a launcher on torch's own threads.

It needs Numba, which includes its compiler; import it only when a CPU kernel is about to run.
"""
