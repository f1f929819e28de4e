"""Types, errors and helpers that every package shares. Import from the submodules: ``errors`` and ``rng`` do not need
torch."""
