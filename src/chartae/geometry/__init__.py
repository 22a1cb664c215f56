"""Geometry of data and of learned charts."""
