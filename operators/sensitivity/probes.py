"""Jacobians, whole or in part, from products: dense ones column by column or row by row, sparse ones a colour at a time.

Models and data count as the vectors that `forward.ravel` makes of them: leaf after leaf, a complex leaf as its real parts and then its
imaginary ones.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse

from .. import checks
from ..forward import Linearization, ravel, unravel
from .colors import Coloring, Mode
from .progress import tracked

#: What a product may differ by from what a sparse Jacobian makes of the same vector, over the products' largest entry.
TOLERANCE = {4: 1e-4, 8: 1e-9}


def columns(at: Linearization, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Columns of the Jacobian, [data, column], one forward product each.

    Args:
        at: The linearization.
        indices: Of the ravelled model.

    Raises:
        ValueError: An index beyond the model.
    """
    size = at.shape[1]
    return np.stack([ravel(at.jvp(unravel(_unit(index, size), at.model_spec))) for index in checks.units(indices, size)], axis=1)


def rows(at: Linearization, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Rows of the Jacobian, [row, model], one reverse product each.

    Args:
        at: The linearization.
        indices: Of the ravelled data.

    Raises:
        ValueError: An index beyond the data.
    """
    size = at.shape[0]
    return np.stack([ravel(at.vjp(unravel(_unit(index, size), at.data_spec))) for index in checks.units(indices, size)])


def jacobian(at: Linearization, *, mode: Mode | None = None, memory: float = 2e9) -> np.ndarray:
    """The whole Jacobian, [data, model].

    Args:
        at: The linearization.
        mode: 'forward', a product a column, or 'reverse', a product a row; the one of fewer products by default.
        memory: Bytes that it may take.

    Raises:
        ValueError: It takes more: `write_jacobian` streams it to a file.
    """
    chosen, dtype = _mode(mode, at.shape), ravel(at.data).dtype
    if (needed := dtype.itemsize * at.shape[0] * at.shape[1]) > memory:
        advice = "Stream it to a file with write_jacobian, or take columns or rows of it."
        raise checks.invalid("memory", f"{memory:.4g} bytes", f"at least {needed:.4g} for a Jacobian of {at.shape[0]} x {at.shape[1]}", advice)
    found = np.empty(at.shape, dtype)
    for number, line in enumerate(_lines(at, chosen)):
        found[(slice(None), number) if chosen == "forward" else number] = line
    return found


def write_jacobian(at: Linearization, file: str | Path, *, mode: Mode | None = None, memory: float = 2e8) -> None:
    """The whole Jacobian as the dataset 'jacobian' [data, model] of an HDF5 file, written as it is computed.

    Args:
        at: The linearization.
        file: Made anew; what is not finished is left under the name with '.part' behind it.
        mode: As of `jacobian`.
        memory: Bytes that may wait to be written.
    """
    chosen, shape = _mode(mode, at.shape), at.shape
    along, dtype = int(chosen == "forward"), ravel(at.data).dtype
    block = max(1, min(shape[along], int(memory / (dtype.itemsize * shape[1 - along]))))
    part = Path(f"{file}.part")
    with h5py.File(part, "w") as out:
        data = out.create_dataset("jacobian", shape, dtype, chunks=(shape[0], block) if along else (block, shape[1]))
        for first, lines in _blocks(at, chosen, block):
            where = slice(first, first + len(lines))
            data[(slice(None), where) if along else where] = lines.T if along else lines
    part.replace(file)


def _blocks(at: Linearization, mode: Mode, block: int) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first, columns or rows as lines) of the Jacobian, so many at a time."""
    waiting = []
    for number, line in enumerate(_lines(at, mode)):
        waiting.append(line)
        if len(waiting) == block:
            yield number + 1 - block, np.stack(waiting)
            waiting = []
    if waiting:
        yield number + 1 - len(waiting), np.stack(waiting)


def sparse_jacobian(at: Linearization, pattern: Any, *, seed: int = 0) -> scipy.sparse.csr_array:
    """The Jacobian of a known pattern from as few products as its colouring needs.

    Args:
        at: The linearization.
        pattern: [data, model] SciPy sparse matrix or `CSRMatrix`: where entries may be other than zero. Or its `Coloring`, which saves
            finding one for every model.
        seed: Of the random vector that the result is tried on.

    Returns:
        [data, model], its entries those of the pattern in the order of rows.

    Raises:
        ValueError: A pattern of another shape, or one that misses entries: the product with a random vector is not the Jacobian's.
    """
    found = pattern if isinstance(pattern, Coloring) else Coloring(pattern)
    where = found.pattern
    if where.shape != at.shape:
        raise checks.invalid("pattern", f"of shape {where.shape}", f"of shape {at.shape}, that of the Jacobian")
    product, values = _product(at, found.mode), np.empty(where.nnz, ravel(at.data).dtype)
    for mask, entries, places in tracked(found.products(), "Jacobian", found.count):
        values[entries] = product(mask.astype(values.dtype))[places]
    made = scipy.sparse.csr_array((values, where.indices, where.indptr), shape=where.shape)
    _try(at, made, seed)
    return made


def _try(at: Linearization, found: scipy.sparse.csr_array, seed: int) -> None:
    """Raise if a matrix is not the Jacobian, by what both make of a random vector."""
    vector = np.random.default_rng(seed).uniform(1, 2, found.shape[1]).astype(found.dtype)
    expected = _product(at, "forward")(vector)
    off = np.abs(found @ vector - expected)
    bad = np.flatnonzero(off > TOLERANCE[found.dtype.itemsize] * max(np.abs(expected).max(initial=0), 1e-300))
    if bad.size:
        given = f"that misses entries in {bad.size} of {found.shape[0]} rows, row {off.argmax()} first of all"
        raise checks.invalid("pattern", given, "one that covers all entries", "`detect_pattern` finds it from products.")


def _lines(at: Linearization, mode: Mode) -> Iterator[np.ndarray]:
    """The columns of the Jacobian, or its rows, one after the other."""
    size, product = at.shape[1 if mode == "forward" else 0], _product(at, mode)
    for number in tracked(range(size), "Jacobian"):
        yield product(_unit(number, size))


def _product(at: Linearization, mode: Mode | None) -> Callable[[np.ndarray], np.ndarray]:
    if mode == "forward":
        return lambda v: ravel(at.jvp(unravel(v, at.model_spec)))
    return lambda w: ravel(at.vjp(unravel(w, at.data_spec)))


def _unit(index: int, size: int) -> np.ndarray:
    vector = np.zeros(size)
    vector[index] = 1
    return vector


def _mode(mode: Mode | None, shape: tuple[int, int]) -> Mode:
    if mode is None:
        return "forward" if shape[1] <= shape[0] else "reverse"
    return checks.choice("mode", mode, ("forward", "reverse"))
