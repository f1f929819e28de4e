"""A run as one page to look at."""

from .report import write_report as write_report
