"""The shots of a full-waveform inversion on the workers of a cluster, each of which makes the objective from its config once for a wavelet."""

import functools
import os
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from geoinv.datasets import shots
from geoinv.datasets.files import sha256

from ..cluster import Cluster
from ..config import dump_toml, parse

if TYPE_CHECKING:
    from .inputs import Inputs
    from .objective import Objective, Part

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@final
@dataclass(frozen=True)
class Recipe:
    """What a worker makes an objective from.

    Args:
        config: As TOML; its files must be there on the worker.
        band: Its number.
        wavelet: In use: bytes, shape and dtype.
        differentiation: What the operator keeps: a worker with other cores or memory would choose another one, with other last bits.
        files: What it depends on, with their SHA-256.
    """

    config: str
    band: int
    wavelet: tuple[bytes, tuple[int, ...], str]
    differentiation: Any
    files: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, objective: "Objective", files: Mapping[str, str]) -> "Recipe":
        """That of an objective."""
        wavelet = np.ascontiguousarray(objective.wavelet)
        signature = (wavelet.tobytes(), wavelet.shape, wavelet.dtype.str)
        return cls(dump_toml(objective.config), objective.band.number, signature, objective.wave.differentiation, tuple(files.items()))

    @property
    def signal(self) -> np.ndarray:
        """The wavelet, [time] or [shot, source, time]."""
        content, shape, dtype = self.wavelet
        return np.frombuffer(content, dtype).reshape(shape)


@final
@dataclass(frozen=True, eq=False)
class OnCluster:
    """Computes the parts of shots there; called as `objective.Spread`. Files are as of `Recipe`."""

    cluster: Cluster
    files: Mapping[str, str]

    def __call__(self, objective: "Objective", model: np.ndarray, chosen: np.ndarray, seed: int | None) -> "Iterator[Part]":
        return self.cluster.in_turn(_part, (Recipe.of(objective, self.files), model, seed), chosen.tolist())


def _part(recipe: Recipe, model: np.ndarray, seed: int | None, shot: int) -> "Part":
    """One shot's, on a worker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the process that asks has given them
        (part,) = _objective(recipe).parts(model, np.array([shot]), seed)
    return part


@functools.lru_cache(maxsize=1)
def _inputs(config: str, files: tuple[tuple[str, str], ...]) -> "Inputs":
    from .inputs import load

    for path, digest in files:
        if not Path(path).is_file() or sha256(path) != digest:
            raise OSError(f"'{path}' is not on a worker what it was when the inversion began")
    return load(parse(tomllib.loads(config)))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=2)
def _objective(recipe: Recipe) -> "Objective":
    from .bands import bands
    from .objective import Objective

    inputs, config = _inputs(recipe.config, recipe.files), parse(tomllib.loads(recipe.config))
    (band,) = (each for each in bands(config, shots.dt(inputs.survey)) if each.number == recipe.band)  # type: ignore[arg-type]
    return Objective.of(config, inputs, band).kept(recipe.signal, recipe.differentiation)  # type: ignore[arg-type]
