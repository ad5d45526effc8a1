"""Where the entries of a sparse Jacobian are, found from products."""

import numpy as np
import scipy.sparse

from ..forward import Linearization, ravel, unravel
from .colors import coloring
from .progress import tracked


def detect_pattern(at: Linearization, *, seed: int = 0) -> scipy.sparse.csr_array:
    """The pattern of the Jacobian at a model, from forward products with random vectors.

    Groups of neighbouring columns are probed, then their halves, down to single columns. Groups that reach no row in common share a
    product, and halves reach no row that their whole did not: with few entries in a row that takes some products for each halving, where
    one by one the columns would take as many as there are. Rows see each group's random positive sum, so entries do not cancel.

    Args:
        at: The linearization. Its products must give zeros where the Jacobian has none, exactly; solves and transforms do not.
        seed: Of the random vectors. At another model the pattern may be another one: linearize at a random one to be sure.

    Returns:
        [data, model] int8 ones.
    """
    rows, size = at.shape
    random = np.random.default_rng(seed)
    edges = np.array([0, size])
    reached = scipy.sparse.csr_array(np.ones((rows, 1), np.int8))
    levels = int(np.ceil(np.log2(size))) if size > 1 else 0
    for _ in tracked(range(levels + 1), "pattern"):
        reached = _kept(at, reached, edges, random)
        if edges.size > size:
            break
        middles = (edges[:-1] + edges[1:]) // 2
        whole = np.repeat(np.arange(edges.size - 1), np.where(middles > edges[:-1], 2, 1))
        edges = np.unique(np.concatenate([edges, middles]))
        reached = reached[:, whole]
    return reached


def _kept(at: Linearization, reached: scipy.sparse.csr_array, edges: np.ndarray, random: np.random.Generator) -> scipy.sparse.csr_array:
    """Of entries [row, group] that may be other than zero those that are."""
    colors = coloring(reached)
    group = np.repeat(np.arange(edges.size - 1), np.diff(edges))
    entry_rows = np.repeat(np.arange(reached.shape[0]), np.diff(reached.indptr))
    entry_colors, found = colors[reached.indices], np.zeros(reached.nnz, bool)
    for color in range(colors.max(initial=0) + 1):
        vector = np.where(colors[group] == color, random.uniform(1, 2, group.size), 0.0)
        product = ravel(at.jvp(unravel(vector, at.model_spec)))
        mine = entry_colors == color
        found[mine] = product[entry_rows[mine]] != 0
    ones = np.ones(found.sum(), np.int8)
    return scipy.sparse.csr_array((ones, (entry_rows[found], reached.indices[found])), shape=reached.shape)
