"""Densities: bounds on log p(x)."""
