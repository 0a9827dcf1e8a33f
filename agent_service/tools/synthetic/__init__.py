"""Synthetic workloads: learn a profile or take a preset, make rows in its likeness, hold them against the source."""
