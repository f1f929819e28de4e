"""Relaxations: from alphas to mixing weights. One file each."""
