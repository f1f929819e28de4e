"""conv_block: see README.md for the derivation; op.py is the entry point."""
