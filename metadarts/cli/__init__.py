"""The command line: one file per verb."""

from .main import main as main
