"""Artifacts of the paper and studies that followed it, from runs to reports."""
