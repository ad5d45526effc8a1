r"""Lanczos iterations that find repeated eigenvalues of :math:`A = R^{-1} H`, H symmetric and not negative, in the inner product of R.

A run begins with a random vector and goes on with the last image under A, all vectors V kept orthogonal, :math:`V^T R V = I`. It meets one
direction only of each repeated eigenvalue, for it never leaves what the powers of A make of its first vector. So when a run has settled,
another one begins with a random vector orthogonal to all that is known: what it meets is A on the rest of the space, where the next
direction of a repeated eigenvalue is as large as the first was (locking; Saad 2011, "Numerical methods for large eigenvalue problems",
section 4.2). The search ends with a run that meets nothing large. Its largest value is below the largest eigenvalue of the rest by more
than a part e with a probability of less than :math:`1.65 \sqrt{n} \exp(-(2 k - 1) \sqrt{e})` after k steps (Kuczynski & Wozniakowski, SIAM
J. Matrix Anal. Appl. 13, 1992): after 8, and a million unknowns, one of four times as much is missed with less than half a per cent.

Eigenvalues are those of :math:`T = V^T H V` over all runs, so that solves with R need not be exact: they only choose the space. What
single precision adds to a product does not matter either, as long as it is small beside the eigenvalues that are sought: it is random,
and mostly orthogonal to V.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, final

import numpy as np

from .prior import Prior

#: Residual of an eigenvalue, relative to it, at which it counts as found.
FOUND = 0.05
#: Difference of the bounds of a quadrature, relative to them, at which it ends.
CLOSE = 0.02
#: Steps of a run that meets nothing, before that is believed.
LEAST = 8
#: Unknowns whose vectors are turned at a time.
BLOCK = 8192
#: Residual of the solves with R.
TOLERANCE = 1e-6


class Ritz(NamedTuple):
    """Approximate eigenvectors ``V turns``.

    Args:
        values: Of T, smallest first.
        turns: Its eigenvectors [vector, value].
        errors: An eigenvalue of A is as close to each value as this.
    """

    values: np.ndarray
    turns: np.ndarray
    errors: np.ndarray

    @property
    def sure(self) -> np.ndarray:
        """Which are found."""
        return (self.values > 0) & (self.errors <= FOUND * np.abs(self.values))

    def settled(self, enough: float) -> bool:
        """Whether all that are large are found, and it has been looked for more: one that is small is, or none is large after some steps."""
        large = self.values >= enough
        searched = np.any(self.sure & ~large) or (not np.any(large) and self.values.size >= LEAST)
        return bool(searched and not np.any(large & ~self.sure))


@final
class Space:
    """The vectors of all runs, and what H makes of them; `complete` once `search` finds nothing more.

    Args:
        information: H times a vector [model].
        prior: Of the precision R.
        most: Vectors that there is room for.
        spare: Further room, for `quadrature`.
    """

    def __init__(self, information: Callable[[np.ndarray], np.ndarray], prior: Prior, most: int, *, spare: int = 0) -> None:
        self.prior, self.count, self.complete = prior, 0, False
        self._information, self._most, room = information, most, most + spare
        self._vectors, self._between = np.empty((room, prior.size)), np.zeros((room, room))
        self._left = np.zeros(room)  # of the last vector of each run, what of its image is outside

    @property
    def full(self) -> bool:
        """Whether there is no room."""
        return self.count >= self._most

    @property
    def vectors(self) -> np.ndarray:
        """V transposed, [vector, model]."""
        return self._vectors[: self.count]

    def rest(self, x: np.ndarray) -> np.ndarray:
        """What of vectors [model] or [model, k] is orthogonal to all; twice is enough (Parlett 1998, section 6.9)."""
        return self._outside(self.vectors, x)

    def _outside(self, vectors: np.ndarray, x: np.ndarray) -> np.ndarray:
        for _ in range(2):
            x = x - vectors.T @ (vectors @ (self.prior.precision @ x))
        return x

    def add(self, vector: np.ndarray, *, begin: bool) -> np.ndarray:
        """Take one of `rest` in, at the beginning of a run or behind its last; returns its image, again of `rest`."""
        at = self.count
        vectors = self._vectors[: at + 1]
        vectors[at] = vector / self.length(vector)
        image = self._information(vectors[at])
        self._between[at, : at + 1] = self._between[: at + 1, at] = vectors @ image
        following = self._outside(vectors, self.prior.solve(image, tolerance=TOLERANCE))
        self._left[at] = self.length(following)
        self.count = at + 1  # only now: an interruption may come at any place
        if not begin:
            self._left[at - 1] = 0.0
        return following

    def length(self, x: np.ndarray) -> float:
        """In the inner product of R."""
        return float(np.sqrt(max(0.0, x @ (self.prior.precision @ x))))

    def negligible(self, x: np.ndarray) -> bool:
        """Whether what is left of an image is rounding only."""
        return self.length(x) <= 1e-12 * max(1.0, np.diagonal(self._between)[: self.count].max(initial=0.0))

    def ritz(self, first: int = 0) -> Ritz:
        """Approximate eigenvectors among the vectors from one on."""
        values, turns = np.linalg.eigh(self.between(first))
        return Ritz(values, turns, self._left[first : self.count] @ np.abs(turns))

    def between(self, first: int = 0) -> np.ndarray:
        """T of the vectors from one on."""
        return self._between[first : self.count, first : self.count]

    def eigenvectors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values that are positive, largest first, their vectors [model, value] and errors; takes the place of V, for there may be no other."""
        values, turns, errors = self.ritz()
        keep = np.flatnonzero(values > 0)[::-1]
        for first in range(0, self.prior.size, BLOCK):
            part = slice(first, first + BLOCK)
            self._vectors[: keep.size, part] = turns[:, keep].T @ self.vectors[:, part]
        self.count = keep.size
        return values[keep], self.vectors.T, errors[keep]


def search(space: Space, enough: float, random: np.random.Generator) -> Iterator[float]:
    """Fill a space with runs, until one of them meets no eigenvalue of `enough`, which makes it complete, or there is no room.

    Yields:
        After each product, the smallest eigenvalue of the run that was found when it was last looked at; infinite before.
    """
    while not (space.complete or space.full):
        first, smallest, looked, settled = space.count, np.inf, space.count, False
        vector = space.rest(space.prior.samples(1, random)[:, 0])
        while not (settled := settled or space.negligible(vector)) and not space.full:
            vector = space.add(vector, begin=space.count == first)
            if space.count - looked > (space.count - first) // 20:  # to look each time would take longer than small products
                looked, run = space.count, space.ritz(first)
                smallest, settled = run.values[run.sure].min(initial=np.inf), run.settled(enough)
            yield float(smallest)
        everything = space.count == space.prior.size
        space.complete = bool(settled and (everything or not np.any(space.ritz(first).values >= enough)))


def quadrature(space: Space, steps: int, random: np.random.Generator) -> tuple[float, float, int]:
    """Bounds of ``x^T R B (1 + B)^-1 x`` for one x drawn from the prior outside of a space, B what A is there, and the products it took.

    Its mean over such x is the trace of B (1 + B)^-1. A run from x gives a Gauss rule, which lies above it, and with a node at zero, where
    the spectrum ends, a Gauss-Radau rule, which lies below (Golub & Meurant 2010, "Matrices, moments and quadrature", section 6). The run
    ends when the two are close, or after so many steps; the space is left as it was.
    """
    first, vector = space.count, space.rest(space.prior.samples(1, random)[:, 0])
    size = space.length(vector) ** 2
    least, most = 0.0, size
    while space.count < first + steps and most - least > CLOSE * most and not space.negligible(vector):
        vector = space.add(vector, begin=space.count == first)
        between, left = space.between(first), space.length(vector)
        last = np.eye(len(between))[-1]
        node = left**2 * (np.linalg.pinv(between, hermitian=True) @ last)[-1]
        extended = np.block([[between, left * last[:, np.newaxis]], [left * last, np.array([node])]])
        most, least = (size * _gained(each) for each in (between, extended))
    taken, space.count = space.count - first, first
    return least, most, taken


def _gained(matrix: np.ndarray) -> float:
    """The first diagonal entry of ``B (1 + B)^-1``."""
    values, turns = np.linalg.eigh(matrix)
    return float(turns[0] ** 2 @ (np.clip(values, 0, None) / (1 + np.clip(values, 0, None))))
