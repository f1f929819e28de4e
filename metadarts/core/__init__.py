"""Words that every room shares. Import from the submodules: ``errors`` and ``rng`` do not need torch."""
