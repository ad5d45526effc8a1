"""Gravity of density on a grid: by finite differences (`poisson`) and by analytic prisms (`prism`)."""
