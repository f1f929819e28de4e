"""What the Triton kernels share: how one is launched and recorded, its tiles, its types, sums over programs."""
