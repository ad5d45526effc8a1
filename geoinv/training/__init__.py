"""Fitting models to surveys batch by batch: losses that are sums over units, passes over blocks of them, optimisers, and the trainer."""
