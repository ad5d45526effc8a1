r"""Which columns of a sparse matrix one product can probe at the same time.

Columns that share no row do not mix in a product: with one colour for each set of such columns, J is read off from as many products
as there are colours, ``J[i, j] = (J s_c)_i`` where s_c is one on the columns of colour c, that of j (Curtis, Powell & Reid, J. Inst.
Math. Appl. 13, 1974; Gebremedhin, Manne & Pothen, SIAM Review 47, 2005: a colouring at distance two of the columns). The least number
of colours is hard to find; the greedy choice in one of a few orders is close to it: exact for bands in their natural order.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, final

import numpy as np
import scipy.sparse

from .. import checks
from ..sparse.csr import CSRMatrix

Mode = Literal["forward", "reverse"]


@final
@dataclass(frozen=True, eq=False)
class Coloring:
    """A pattern, and in which products its entries are read off; made once for Jacobians at many models.

    Args:
        pattern: [data, model] SciPy sparse matrix or `CSRMatrix`: where entries may be other than zero.
        mode: 'forward', columns of a colour at a time, or 'reverse', rows; the one of fewer colours by default.

    Attributes:
        colors: Of the columns, or of the rows.

    Raises:
        ValueError: Not a sparse matrix, or another mode.
    """

    pattern: Any
    mode: Mode | None = None
    colors: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        where = csr(self.pattern)
        if self.mode is not None:
            checks.choice("mode", self.mode, ("forward", "reverse"))
        found: dict[Mode, np.ndarray] = {name: coloring(where if name == "forward" else where.T) for name in _MODES if self.mode in (None, name)}
        mode = min(found, key=lambda name: found[name].max(initial=-1))
        for name, value in (("pattern", where), ("mode", mode), ("colors", found[mode])):
            object.__setattr__(self, name, value)

    @property
    def count(self) -> int:
        """How many products a Jacobian takes."""
        return int(self.colors.max(initial=-1)) + 1

    def products(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each colour (the columns or rows that have it as a mask, its entries of the pattern, and where in the product they stand)."""
        order, seen, starts = self._entries
        for color in range(self.count):
            part = slice(starts[color], starts[color + 1])
            yield self.colors == color, order[part], seen[part]

    @functools.cached_property
    def _entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pattern's entries by colour, the place of each in its product, and where the colours begin."""
        rows = np.repeat(np.arange(self.pattern.shape[0], dtype=self.pattern.indices.dtype), np.diff(self.pattern.indptr))
        probed, seen = (self.pattern.indices, rows) if self.mode == "forward" else (rows, self.pattern.indices)
        colors = self.colors[probed]
        order = np.argsort(colors, kind="stable")
        return order, seen[order], np.searchsorted(colors[order], np.arange(self.count + 1))


_MODES: tuple[Mode, ...] = ("forward", "reverse")


def coloring(pattern: Any) -> np.ndarray:
    """Colours of the columns of a matrix, 0, 1, ...: no two columns of one colour have an entry in the same row.

    Args:
        pattern: [m, n] SciPy sparse matrix or `CSRMatrix`; its entries count, whatever their values.

    Returns:
        [n] int32. Columns without entries have colour 0.

    Raises:
        ValueError: Not a sparse matrix.
    """
    rows = csr(pattern)
    columns = rows.tocsc()
    degrees = _reach(rows, columns)
    best = None
    for order in (np.arange(rows.shape[1]), np.argsort(-degrees, kind="stable")):
        found = _greedy()(rows.indptr, rows.indices, columns.indptr, columns.indices, order.astype(np.int64))
        if best is None or found.max(initial=0) < best.max(initial=0):
            best = found
    return best  # type: ignore[return-value]


def csr(pattern: Any) -> scipy.sparse.csr_array:
    """A pattern with ones for entries, in the order of its columns."""
    if isinstance(pattern, CSRMatrix):
        pattern = pattern.to_scipy()
    if not scipy.sparse.issparse(pattern):
        raise checks.invalid(
            "pattern", f"a {type(pattern).__name__}", "a SciPy sparse matrix or a CSRMatrix", "Convert it with scipy.sparse.csr_array."
        )
    found = scipy.sparse.csr_array(pattern, copy=True)
    found.data = np.ones(found.data.size, np.int8)
    found.sum_duplicates()
    found.data[:] = 1
    return found


def _reach(rows: scipy.sparse.csr_array, columns: scipy.sparse.csc_array) -> np.ndarray:
    """How many entries stand in the rows of each column: more than its neighbours, which they bound, and cheap."""
    lengths = np.diff(rows.indptr)
    entries = np.concatenate([[0], np.cumsum(lengths[columns.indices])])
    return entries[columns.indptr[1:]] - entries[columns.indptr[:-1]]


@functools.cache
def _greedy() -> Callable[..., np.ndarray]:
    """Compiled when it is first needed: importing Numba takes half a second."""
    import numba

    @numba.njit(cache=True)
    def greedy(row_starts: Any, row_columns: Any, column_starts: Any, column_rows: Any, order: Any) -> Any:
        n = column_starts.size - 1
        color = np.full(n, -1, np.int32)
        taken = np.full(n + 1, -1, np.int64)  # by which column each colour was last found taken
        for j in order:
            for entry in range(column_starts[j], column_starts[j + 1]):
                row = column_rows[entry]
                for other in range(row_starts[row], row_starts[row + 1]):
                    c = color[row_columns[other]]
                    if c >= 0:
                        taken[c] = j
            c = 0
            while taken[c] == j:
                c += 1
            color[j] = c
        return color

    return greedy
