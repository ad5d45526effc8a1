"""How data answer to the model: what a long computation keeps for its derivative."""

from .strategy import Checkpointed, Every, StoreAll, Strategy

__all__ = ["Checkpointed", "Every", "StoreAll", "Strategy"]
