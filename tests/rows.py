"""A small least-squares problem by units, with a solution that is known, for tests of what goes through surveys batch by batch."""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from geoinv.operators.forward import ForwardOperator, Linearization, linear

UNITS, ROWS, SIZE = 12, 4, 7
RANDOM = np.random.default_rng(11)
#: Of every unit some rows of a matrix and its data, not quite those of one model.
MATRIX = RANDOM.normal(size=(UNITS, ROWS, SIZE))
DATA = MATRIX @ RANDOM.normal(size=SIZE) + 0.1 * RANDOM.normal(size=(UNITS, ROWS))
SOLUTION = np.linalg.lstsq(MATRIX.reshape(-1, SIZE), DATA.ravel())[0]
SURVEY = {"matrix": MATRIX, "observed": DATA}


def squares(model: tf.Tensor, batch: Any) -> tf.Tensor:
    return tf.reduce_sum((tf.linalg.matvec(batch["matrix"], model) - batch["observed"]) ** 2)


def gradient(model: np.ndarray, units: Sequence[int] | slice = slice(None)) -> np.ndarray:
    """Of the mean over units."""
    residual = MATRIX[units] @ model - DATA[units]
    return 2 * np.einsum("uri,ur->i", MATRIX[units], residual) / len(residual)


@final
class Rows(ForwardOperator):
    """A matrix of rows by unit."""

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = tf.constant(matrix)

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([SIZE], tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self._matrix.shape[:2], tf.float64)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matvec(self._matrix, model)

    def linearize(self, model: tf.Tensor) -> Linearization:
        return linear(self, model, lambda w: tf.einsum("uri,ur->i", self._matrix, w))

    def subset(self, units: Any) -> "Rows":
        return Rows(self._matrix.numpy()[units])
