"""How data answer to the model: what a long computation keeps for its derivative."""

from .strategy import Boundary, Checkpointed, Every, StoreAll, Strategy

__all__ = ["Boundary", "Checkpointed", "Every", "StoreAll", "Strategy"]
