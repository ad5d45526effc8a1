"""An operator in blocks of its units, computed in this process or on the workers of a cluster, to the same bits.

Blocks' data are joined, and their gradients added in pairs, pairs of pairs and so on: by a fixed binary tree over the blocks, whoever computes
them. A worker has neighbouring blocks, adds up the branches of the tree that are all its own, and sends back a few sums instead of one
for each block. What it needs for derivatives stays on workers; where one is lost, Dask has it made anew on another one. The blocks go
to workers by way of the scheduler, which keeps them for that.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, final

import numpy as np
import tensorflow as tf

from geoinv.operators import checks
from geoinv.operators.forward import ForwardOperator, Linearization, Nest
from geoinv.operators.parallel import each, in_turn

from .cluster import Cluster
from .memory import held


class Span(NamedTuple):
    """Neighbouring blocks, and the branch of the tree over them."""

    low: int
    high: int

    @property
    def halves(self) -> tuple["Span", "Span"]:
        """The two that it is made of."""
        middle = (self.low + self.high) // 2
        return Span(self.low, middle), Span(middle, self.high)

    def branches(self, whole: "Span") -> list["Span"]:
        """The largest branches of the tree over `whole` that lie in this span."""
        if self.low <= whole.low and whole.high <= self.high:
            return [whole]
        if self.high <= whole.low or whole.high <= self.low:
            return []
        return [found for half in whole.halves for found in self.branches(half)]

    def of(self, parts: Sequence[Any]) -> Sequence[Any]:
        """Those of parts, one for each block."""
        return parts[self.low : self.high]


def added(parts: Iterator[Nest], branch: Span) -> Nest:
    """The sum over a branch of what comes block by block."""
    if branch.high - branch.low == 1:
        return next(parts)
    left, right = (added(parts, half) for half in branch.halves)
    return tf.nest.map_structure(tf.add, left, right)


def total(sums: Mapping[Span, Nest], branch: Span) -> Nest:
    """The sum over a branch from those of smaller ones."""
    if branch in sums:
        return sums[branch]
    left, right = (total(sums, half) for half in branch.halves)
    return tf.nest.map_structure(tf.add, left, right)


class Products(Protocol):
    """The derivative of blocks at a model, and their data there."""

    @property
    def data(self) -> Sequence[tf.Tensor]:
        """Of each block."""

    def pushforward(self, tangent: Nest) -> Sequence[tf.Tensor]:
        """J v of each block."""

    def pullback(self, cotangents: Sequence[tf.Tensor]) -> Mapping[Span, Nest]:
        """J* w, summed over branches that make up all blocks."""


@final
@dataclass(frozen=True, eq=False)
class Group:
    """Neighbouring blocks, in this process: side by side on its cores.

    Args:
        blocks: These.
        span, whole: Which they are, of how many.
    """

    blocks: Sequence[ForwardOperator]
    span: Span
    whole: Span

    def forward(self, model: Nest) -> list[tf.Tensor]:
        """The data of each."""
        return each(lambda n: self.blocks[n].forward(model), len(self.blocks))

    def __sizeof__(self) -> int:
        """Bytes held, by which Dask sees what it would take to have this on another worker."""
        return self._held

    @functools.cached_property
    def _held(self) -> int:
        return int(held(self.blocks))

    def linearize(self, model: Nest) -> "GroupProducts":
        """Their derivative."""
        return GroupProducts(self, each(lambda n: self.blocks[n].linearize(model), len(self.blocks)))


@final
class GroupProducts:
    """`Products` of a group."""

    def __init__(self, group: Group, at: Sequence[Linearization]) -> None:
        self._at, self._branches = at, group.span.branches(group.whole)
        self.data = [block.data for block in at]

    def pushforward(self, tangent: Nest) -> list[tf.Tensor]:
        """See `Products`."""
        return each(lambda n: self._at[n].pushforward(tangent), len(self._at))

    def pullback(self, cotangents: Sequence[tf.Tensor]) -> dict[Span, Nest]:
        """See `Products`."""
        parts = in_turn(lambda n: self._at[n].pullback(cotangents[n]), len(self._at))
        return {branch: added(parts, branch) for branch in self._branches}

    def __sizeof__(self) -> int:
        """As of a group; without what products leave behind, for Dask asks once."""
        return int(held(self._at))


@final
class Spread:
    """Blocks in so many groups, on the workers of a cluster."""

    def __init__(self, blocks: Sequence[ForwardOperator], cluster: Cluster, count: int) -> None:
        whole, ends = Span(0, len(blocks)), np.linspace(0, len(blocks), count + 1).astype(int).tolist()
        self.cluster, self.spans = cluster, [Span(*pair) for pair in itertools.pairwise(ends)]
        groups = [Group(span.of(blocks), span, whole) for span in self.spans]
        self._groups = cluster.shared_out(groups)

    def forward(self, model: Nest) -> list[tf.Tensor]:
        """The data of each block."""
        return _chained(self.cluster.results([self.cluster.submit(_forward, group, _plain(model)) for group in self._groups]))

    def linearize(self, model: Nest) -> "SpreadProducts":
        """Their derivative, which stays on the workers."""
        return SpreadProducts(self, [self.cluster.submit(_linearized, group, _plain(model)) for group in self._groups])


@final
class SpreadProducts:
    """`Products` on workers."""

    def __init__(self, spread: Spread, at: Sequence[Any]) -> None:
        self._spread, self._at = spread, at
        self.data = _chained(self._called(_data, [() for _ in at]))

    def pushforward(self, tangent: Nest) -> list[tf.Tensor]:
        """See `Products`."""
        return _chained(self._called(_pushforward, [(_plain(tangent),) for _ in self._at]))

    def pullback(self, cotangents: Sequence[tf.Tensor]) -> dict[Span, Nest]:
        """See `Products`."""
        found = self._called(_pullback, [(_plain(span.of(cotangents)),) for span in self._spread.spans])
        return {branch: _tensors(value) for sums in found for branch, value in sums.items()}

    def _called(self, function: Callable[..., Any], given: Sequence[tuple[Any, ...]]) -> list[Any]:
        cluster = self._spread.cluster
        return cluster.results([cluster.submit(function, part, *more) for part, more in zip(self._at, given, strict=True)])


@final
@dataclass(frozen=True, eq=False)
class Blockwise(ForwardOperator):
    """An operator whose data are those of blocks, joined; its units are the blocks.

    Args:
        blocks: Operators of one model, with data [row, ...] each.
        rows: Of each block, where its data stand among all.
        cluster: On whose workers they are computed, in eager mode only; in this process without.
    """

    blocks: Sequence[ForwardOperator]
    rows: Sequence[np.ndarray]
    cluster: Cluster | None = None

    twice_differentiable = False

    def __post_init__(self) -> None:
        for block, own in zip(self.blocks, self.rows, strict=True):
            checks.shape("rows", own, (block.data_spec.shape[0],))
        every = np.sort(np.concatenate(self.rows))
        if not np.array_equal(every, np.arange(every.size)):
            raise checks.invalid("rows", "that are missing or given twice", f"each number from 0 to {every.size - 1} once")

    @property
    def xla(self) -> bool:  # type: ignore[override]
        return self.cluster is None and all(block.xla for block in self.blocks)

    @property
    def model_spec(self) -> Nest:
        return self.blocks[0].model_spec

    @property
    def data_spec(self) -> tf.TensorSpec:
        first = self.blocks[0].data_spec
        return tf.TensorSpec((self._order.size, *first.shape[1:]), first.dtype)

    def forward(self, model: Nest) -> tf.Tensor:
        return self._joined(self._computed().forward(model))

    def linearize(self, model: Nest) -> Linearization:
        at: Products = self._computed().linearize(model)
        return Linearization(
            self.model_spec,
            self.data_spec,
            self._joined(at.data),
            lambda v: self._joined(at.pushforward(v)),
            lambda w: total(at.pullback([tf.gather(w, own) for own in self.rows]), self._whole),
        )

    def subset(self, units: Any) -> "Blockwise":
        chosen = checks.units(units, len(self.blocks))
        rows = np.concatenate([self.rows[block] for block in chosen])
        ranks = np.split(np.argsort(np.argsort(rows)), np.cumsum([self.rows[block].size for block in chosen])[:-1])
        return Blockwise([self.blocks[block] for block in chosen], ranks, self.cluster)

    @property
    def _whole(self) -> Span:
        return Span(0, len(self.blocks))

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """Where each row comes from."""
        return np.argsort(np.concatenate(self.rows))

    def _joined(self, parts: Sequence[Any]) -> tf.Tensor:
        return tf.gather(tf.concat(parts, axis=0), self._order)

    def _computed(self) -> Group | Spread:
        if self.cluster is None:
            return Group(self.blocks, self._whole, self._whole)
        if not tf.executing_eagerly():
            raise checks.invalid("cluster", "in a graph", "asked in eager mode", "Leave tf.function out.")
        places = self.cluster.places
        if places not in self._spreads:  # workers have come or gone
            self._spreads.clear()
            self._spreads[places] = Spread(self.blocks, self.cluster, max(1, min(len(self.blocks), len(places))))
        return self._spreads[places]

    @functools.cached_property
    def _spreads(self) -> dict[tuple[str, ...], Spread]:
        """The one in use, by the workers that it was made for."""
        return {}


def blockwise(operator: ForwardOperator, units: Sequence[np.ndarray], rows: Sequence[np.ndarray], cluster: Cluster | None = None) -> ForwardOperator:
    """An operator in blocks of its units, which are the units of what is returned; itself where there is one block in its own order.

    Args:
        operator: With data [row, ...].
        units: Of each block.
        rows: Of each block, where its data stand among the operator's.
        cluster: On whose workers blocks are computed.
    """
    if cluster is not None and len(units) == 1:
        checks.warn("the survey is too small to be spread over workers: it is computed in this process")
        cluster = None
    if cluster is not None and len(units) < cluster.threads:
        checks.warn(f"workers have something to do on {len(units)} of {cluster.threads} threads: the survey is one of {len(units)} blocks")
    blocks = [operator.subset(block) for block in units]
    alone = cluster is None and len(blocks) == 1 and np.array_equal(rows[0], np.arange(rows[0].size))
    return blocks[0] if alone else Blockwise(blocks, rows, cluster)


def cut(count: int, size: float, multiple: int = 1) -> list[np.ndarray]:
    """The numbers from 0 to `count` - 1 in blocks as even as can be, of about so many, which begin at multiples of a number."""
    steps = -(-count // multiple)
    parts = np.array_split(np.arange(0, count, multiple), max(1, min(steps, round(count / size))))
    return [np.arange(part[0], min(part[-1] + multiple, count)) for part in parts]


# --------------------------------------------------------------------------------------------------------------- on workers


def _forward(group: Group, model: Nest) -> list[np.ndarray]:
    return _plain(group.forward(_tensors(model)))


def _linearized(group: Group, model: Nest) -> GroupProducts:
    return group.linearize(_tensors(model))


def _data(at: GroupProducts) -> list[np.ndarray]:
    return _plain(at.data)


def _pushforward(at: GroupProducts, tangent: Nest) -> list[np.ndarray]:
    return _plain(at.pushforward(_tensors(tangent)))


def _pullback(at: GroupProducts, cotangents: Sequence[np.ndarray]) -> dict[Span, Any]:
    return {branch: _plain(value) for branch, value in at.pullback(_tensors(cotangents)).items()}


def _plain(nest: Nest) -> Any:
    """As arrays, which processes send each other."""
    return tf.nest.map_structure(np.asarray, nest)


def _tensors(nest: Any) -> Nest:
    return tf.nest.map_structure(tf.convert_to_tensor, nest)


def _chained(found: Sequence[Sequence[np.ndarray]]) -> list[Any]:
    return [part for group in found for part in group]
