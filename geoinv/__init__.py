"""geoinv: geophysical inversion with sparse operators that TensorFlow differentiates."""

__version__ = "0.1.0"
