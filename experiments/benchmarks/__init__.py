"""Benchmarks: ratios against what one would otherwise use, measured side by side."""
