"""What holds data: surveys, file formats, projections, topography and synthetic examples."""

if __name__ != "geoinv.datasets":
    raise ImportError("Import this package as geoinv.datasets: install the project first with 'pip install .' or 'make demo'.")
