"""Finds every transfer to the watched addresses of a chain by itself, and reports where each stands."""
