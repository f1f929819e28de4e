"""A run as one HTML page."""

from .report import write_report as write_report
