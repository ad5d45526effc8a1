"""Inversion of first-arrival travel times."""
