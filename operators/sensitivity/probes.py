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
import tensorflow as tf

from .. import checks
from ..forward import Linearization, ravel, unravel
from .colors import Coloring, Mode
from .entries import compare, place
from .progress import tracked
from .tracing import rounding

#: What an entry of a product may differ by from what a sparse Jacobian makes of the same vector, relative to the sum of what it is made of.
TOLERANCE = {2: 0.1, 4: 1e-4, 8: 1e-9}
#: Bytes of a chunk of a file, which is what is read or written at a time.
CHUNK = 2**24


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
        file: Made anew; what is not finished is left under the name with '.part' behind it, NaN where it was not computed.
        mode: As of `jacobian`.
        memory: Bytes that may wait to be written.

    Raises:
        ValueError: A folder that is not there, or a budget that is none.
    """
    chosen, shape = _mode(mode, at.shape), at.shape
    dtype = _single_or_more(at)
    checks.positive("memory", memory)
    if not (folder := Path(file).resolve().parent).is_dir():
        raise checks.invalid("file", f"'{file}'", "in a folder that is there", f"Make {folder}.")
    along = int(chosen == "forward")
    line = max(1, dtype.itemsize * shape[1 - along])
    block = int(np.clip(memory / line, 1, max(1, shape[along])))
    # HDF5 takes no chunks of 4 GB; the lines of one are written together.
    chunk = [min(max(1, CHUNK // dtype.itemsize), max(1, shape[1 - along]))] * 2
    chunk[along] = int(np.clip(CHUNK / line, 1, block))
    part = Path(f"{file}.part")
    with h5py.File(part, "w") as out:
        data = out.create_dataset("jacobian", shape, dtype, chunks=tuple(chunk) if min(shape) else None, fillvalue=np.nan)
        waiting = np.empty((shape[0], block) if along else (block, shape[1]), dtype)
        for number, found in enumerate(_lines(at, chosen)):
            place = number % block
            waiting[(slice(None), place) if along else place] = found
            if place == block - 1 or number == shape[along] - 1:
                where = slice(number - place, number + 1)
                data[(slice(None), where) if along else where] = waiting[:, : place + 1] if along else waiting[: place + 1]
    part.replace(file)


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
        ValueError: A pattern of another shape, products that are not finite, or a pattern that misses entries: the product with a random
            vector is not the Jacobian's. Entries that are smaller than the rounding of the product's largest go unseen, in half precision
            some others, too.
    """
    found = pattern if isinstance(pattern, Coloring) else Coloring(pattern)
    where = found.pattern
    if where.shape != at.shape:
        raise checks.invalid("pattern", f"of shape {where.shape}", f"of shape {at.shape}, that of the Jacobian")
    mode: Mode = found.mode or "forward"
    product, values = _product(at, mode), np.empty(where.nnz, _single_or_more(at))
    for mask, entries, places in tracked(found.products(), "Jacobian", found.count):
        place()(values, entries, product(mask.astype(values.dtype)).astype(values.dtype, copy=False), places)
    made = scipy.sparse.csr_array((values, where.indices, where.indptr), shape=where.shape)
    _try(at, made, mode, seed)
    return made


def _single_or_more(at: Linearization) -> np.dtype:
    """The type of its numbers; neither SciPy's matrices nor HDF5 have all of half precision."""
    return np.promote_types(ravel(at.data).dtype, np.float32)


def _try(at: Linearization, found: scipy.sparse.csr_array, mode: Mode, seed: int) -> None:
    """Raise if a matrix is not the Jacobian, by what both make of a random vector, with products of the mode that it was made of."""
    name, matrix = ("row", found) if mode == "forward" else ("column", found.T.tocsr())
    vector = 1 + np.random.default_rng(seed).random(matrix.shape[1], found.dtype)
    product = _product(at, mode)(vector)
    off, made_of = compare()(matrix.indptr, matrix.indices, matrix.data, vector, product.astype(found.dtype, copy=False))
    if not np.all(np.isfinite(off)):
        raise checks.invalid("products", f"that are not finite, {name} {np.flatnonzero(~np.isfinite(off))[0]} first of all", "finite")
    unit = max(map(rounding, tf.nest.flatten(at.data_spec)))
    bad = np.flatnonzero(off > TOLERANCE[product.dtype.itemsize] * made_of + unit * made_of.max(initial=0))
    if bad.size:
        given = f"that misses entries in {bad.size} of {matrix.shape[0]} {name}s, {name} {bad[0]} first of all"
        raise checks.invalid("pattern", given, "one that covers all entries", "`detect_pattern` finds it from products.")


def _lines(at: Linearization, mode: Mode) -> Iterator[np.ndarray]:
    """The columns of the Jacobian, or its rows, one after the other."""
    size, product = at.shape[1 if mode == "forward" else 0], _product(at, mode)
    for number in tracked(range(size), "Jacobian"):
        yield product(_unit(number, size))


def _product(at: Linearization, mode: Mode) -> Callable[[np.ndarray], np.ndarray]:
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
