"""The operations that an edge of a cell may carry: one file each."""
