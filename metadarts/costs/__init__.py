"""Costs of an architecture, differentiable in its mixing weights: one file each."""
