"""Intervals, bootstrap and tables."""
