"""Gravity to density: from a config to a directory of results (`job`)."""
