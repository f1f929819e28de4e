"""Measurements across tasks and runs: tables of papers, and whether architectures are specific to their tasks."""
