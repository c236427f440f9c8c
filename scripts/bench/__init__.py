"""Figures, each as a ratio against a baseline in the same run: machines differ and are shared, ratios travel.

`python -m scripts.bench create|fleet|idle|telemetry [--json]` prints a table for people, or one JSON object of named figures.
"""
