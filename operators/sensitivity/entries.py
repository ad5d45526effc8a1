"""Compiled loops over the entries of a sparse Jacobian: what NumPy does in several passes over them costs as much as the products."""

import functools
from collections.abc import Callable
from typing import Any


@functools.cache
def place() -> Callable[..., None]:
    """``values[entries] = product[places]``; compiled when it is first needed, as importing Numba takes half a second."""
    import numba

    @numba.njit(cache=True)
    def placed(values: Any, entries: Any, product: Any, places: Any) -> None:
        for k in range(entries.size):
            values[entries[k]] = product[places[k]]

    return placed


@functools.cache
def compare() -> Callable[..., Any]:
    """(``|A v - product|``, ``max(|A| |v|, |product|)``) of a CSR matrix [row], in one pass over its entries."""
    import numba
    import numpy as np

    @numba.njit(cache=True)
    def compared(starts: Any, columns: Any, values: Any, vector: Any, product: Any) -> Any:
        off, made_of = np.empty(product.size), np.empty(product.size)
        for row in range(product.size):
            total, size = 0.0, 0.0
            for k in range(starts[row], starts[row + 1]):
                part = float(values[k]) * float(vector[columns[k]])
                total += part
                size += abs(part)
            expected = float(product[row])
            off[row], made_of[row] = abs(total - expected), max(size, abs(expected))
        return off, made_of

    return compared
