"""Contracts that every other floor speaks: shapes, distributions, batches, traces, plans, errors."""
