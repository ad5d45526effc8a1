"""What is worked out once and remembered for as long as the patterns concerned live, and no longer.

Patterns are held weakly. What is remembered of one must therefore not refer to it, or neither would ever go. Threads that want
the same thing wait for the one that makes it; those that want other things do not.
"""

import hashlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

import numpy as np

if TYPE_CHECKING:
    from .pattern import Pattern

T = TypeVar("T")

#: How many things of one kind are kept for values of one pattern: those of a matrix, and of the one before, to which a line search
#: returns. More would be dead weight in an inversion whose values change: factors of a 3-D problem take gigabytes each.
RECENT = 2


def kept(symbolic: Callable[..., T]) -> Callable[..., T]:
    """A function of patterns that runs once for the same patterns; its results, which must not hold these, live as long as they do."""
    tree: Any = weakref.WeakKeyDictionary()
    lock = threading.Lock()

    def once(*patterns: "Pattern") -> T:
        with lock:
            node = tree
            for pattern in patterns[:-1]:
                node = node.setdefault(pattern, weakref.WeakKeyDictionary())
            slot = node.setdefault(patterns[-1], Slot())
        return slot.get(lambda: symbolic(*patterns))

    return once


def recent(kind: str, pattern: "Pattern", values: np.ndarray, make: Callable[[], T]) -> T:
    """What `make` makes of these very values on this pattern, kept with the `RECENT` last ones of its kind."""
    digest = hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).digest()
    return _recent(pattern).get(kind, (values.dtype.str, digest), make)


@final
@dataclass(frozen=True, eq=False)
class Slot(Generic[T]):
    """A thing that is made once, when it is first wanted; if that fails, it is tried again the next time."""

    made: list[T] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)

    def get(self, make: Callable[[], T]) -> T:
        with self.lock:
            if not self.made:
                self.made.append(make())
            return self.made[0]


@final
@dataclass(frozen=True, eq=False)
class Recent:
    """The few things of each kind that were wanted last, by key."""

    slots: dict[str, OrderedDict[Any, Slot]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)

    def get(self, kind: str, key: Any, make: Callable[[], T]) -> T:
        with self.lock:
            same = self.slots.setdefault(kind, OrderedDict())
            slot = same.setdefault(key, Slot())
            same.move_to_end(key)
            while len(same) > RECENT:  # before the next one is made, so that there is memory for it
                same.popitem(last=False)
        return slot.get(make)


@kept
def _recent(_: "Pattern") -> Recent:
    return Recent()
