"""Figures of a run: curves, and its shift by layer."""
