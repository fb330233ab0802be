"""Reproduces the paper's artifacts and follow-up studies, from runs to reports."""
