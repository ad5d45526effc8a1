"""What an inversion's data resolve: coverage, depth of investigation, point-spread functions and deviations, of every kind of inversion."""
