"""Units of surveys read a few at a time, blocks of them, and the reader that is ahead."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

from geoinv.datasets import netcdf, shots
from geoinv.datasets.batches import Blocks, Cursor, Reader
from geoinv.datasets.units import Arrays, SurveyFile, Units, ladder

SPREADS = (3, 12, 7, 12, 5)


@pytest.fixture(scope="module")
def survey() -> xarray.Dataset:
    """Shots with spreads of different length."""
    random = np.random.default_rng(0)
    gathers = [
        {
            "observed": random.normal(size=(count, 6)),
            "sources": {"easting": 10.0 * shot, "upward": 0.0},
            "receivers": {"easting": 5.0 * np.arange(count), "upward": 0.0},
            "uncertainty": 0.1,
            "shot_id": 100 + shot,
        }
        for shot, count in enumerate(SPREADS)
    ]
    return shots.from_gathers(gathers, 0.004 * np.arange(6))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, survey: xarray.Dataset) -> Path:
    made = tmp_path_factory.mktemp("units") / "survey.nc"
    netcdf.write(made, survey)
    return made


def test_units_are_read_as_they_were_written_and_cut_behind_the_last_live_receiver(path: Path, survey: xarray.Dataset) -> None:
    source = SurveyFile(path)
    assert source.count == 5 and source.lengths.tolist() == list(SPREADS)
    for units, length in (([0], 3), ([2], 7), ([4], 5), ([1], 12), ([4, 0, 2], 7)):
        batch = source.read(np.array(units))
        assert batch["unit"].tolist() == units and batch["live"].dtype == bool
        for name in ("observed", "uncertainty", "live", "receiver_easting"):
            np.testing.assert_array_equal(batch[name], survey[name].values[units, :length])
        np.testing.assert_array_equal(batch["source_easting"], survey["source_easting"].values[units])
        assert batch["observed"].dtype == np.float32
    assert set(SurveyFile(path, variables=["observed"]).read(np.array([3]))) == {"observed", "unit"}


def test_lengths_are_few() -> None:
    """A quarter longer each, so that a hundred lengths make thirteen programs; never longer than the array."""
    assert sorted({ladder(length, 1000) for length in range(1, 13)}) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12]
    assert all(length <= ladder(length, 1000) <= max(length + 1, 1.25 * length) for length in range(1, 1001))
    assert ladder(999, 1000) == 1000


def test_arrays_are_units_too() -> None:
    source = Arrays({"a": np.arange(6).reshape(3, 2), "b": np.zeros(3)})
    batch = source.read(np.array([2, 0]))
    assert source.count == 3 and batch["a"].tolist() == [[4, 5], [0, 1]] and batch["unit"].tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"'arrays' of .*'a': 3, 'b': 2.* units"):
        Arrays({"a": np.zeros(3), "b": np.zeros(2)})
    for given in ({"unit": np.zeros(3)}, {"name": np.array(["a", "b"])}):
        with pytest.raises(ValueError, match=r"'arrays' with '(unit|name)', .*: must be of numbers, and of other names than 'unit'"):
            Arrays(given)
    assert Arrays({"a": np.zeros(3)}).describe() != Arrays({"a": np.ones(3)}).describe()


def test_what_cannot_be_read_is_refused(path: Path, tmp_path: Path, survey: xarray.Dataset) -> None:
    with pytest.raises(ValueError, match=r"'path' .*missing.nc': must be an existing file"):
        SurveyFile(tmp_path / "missing.nc")
    with pytest.raises(ValueError, match="'unit' 'station': must be the first dimension of variables of"):
        SurveyFile(path, unit="station")
    with pytest.raises(ValueError, match=r"'variables' 'nothing': must be of live, observed, "):
        SurveyFile(path, variables=["nothing"])
    scaled = tmp_path / "scaled.nc"
    survey[["observed"]].to_netcdf(scaled, engine="h5netcdf", encoding={"observed": {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -1}})
    with pytest.raises(ValueError, match="'variable' 'observed', stored scaled: must be stored as it is"):
        SurveyFile(scaled)


def test_numbers_that_stand_for_none_are_none(tmp_path: Path) -> None:
    values, counts = np.array([[1.0, np.nan], [3.0, 4.0]], np.float32), np.array([[5.0, np.nan], [7.0, 8.0]])
    made = xarray.Dataset({"observed": (("shot", "time"), values), "count": (("shot", "time"), counts)})
    encoding = {"observed": {"_FillValue": -9999.0}, "count": {"dtype": "int32", "_FillValue": -1}}
    made.to_netcdf(tmp_path / "missing.nc", engine="h5netcdf", encoding=encoding)
    batch = SurveyFile(tmp_path / "missing.nc").read(np.array([0, 1]))
    np.testing.assert_array_equal(batch["observed"], values)
    np.testing.assert_array_equal(batch["count"], counts)


def test_chunks_of_many_units_are_warned_of(tmp_path: Path) -> None:
    made = xarray.Dataset({"observed": (("shot", "time"), np.zeros((16, 40000), np.float32))})
    made.to_netcdf(tmp_path / "chunked.nc", engine="h5netcdf", encoding={"observed": {"chunksizes": (16, 1000)}})
    SurveyFile(tmp_path / "chunked.nc")
    made.to_netcdf(tmp_path / "large.nc", engine="h5netcdf", encoding={"observed": {"chunksizes": (16, 40000)}})
    with pytest.warns(UserWarning, match=r"keeps observed in chunks of 16 shots, all of which are read for one of them; write it with chunks of one"):
        SurveyFile(tmp_path / "large.nc")


# --------------------------------------------------------------------------------------------------------------- batches


def test_an_epoch_has_every_block_once_in_an_order_of_its_own() -> None:
    blocks = Blocks(23, 4, seed=3)
    assert blocks.count == 6 and blocks[5].tolist() == [20, 21, 22] and blocks.size_of([0, 5]) == 7
    first, second = blocks.order(0), blocks.order(1)
    assert sorted(first) == list(range(6)) and first.tolist() != second.tolist() and first.tolist() == Blocks(23, 4, seed=3).order(0).tolist()
    assert Blocks(23, 4).order(5).tolist() == list(range(6))
    seen, cursor = [], Cursor()
    for _ in range(3):
        chosen, cursor = blocks.take(cursor, 2)
        assert chosen.tolist() == sorted(chosen)
        seen += chosen.tolist()
    assert sorted(seen) == list(range(6)) and cursor == Cursor(1, 0)
    assert len(blocks.take(Cursor(0, 4), 5)[0]) == 2, "an epoch ends with what is left of it"


class Counting(Units):
    """Units that say when they are read; one of them may be broken."""

    def __init__(self, broken: int = -1) -> None:
        self.read_so_far: list[int] = []
        self._broken = broken

    @property
    def count(self) -> int:
        return 50

    def read(self, units: np.ndarray) -> dict[str, np.ndarray]:
        if self._broken in units:
            raise ValueError(f"Invalid 'file' unit {self._broken}")
        self.read_so_far += units.tolist()
        return {"unit": units, "value": np.ones((len(units), int(units[0]) % 3 + 1), np.float32)}

    def describe(self) -> dict[str, str]:
        return {}


def test_a_reader_is_ahead_and_not_far() -> None:
    source = Counting()
    reader = Reader(source, Blocks(50))
    assert reader.read(0, lambda: iter(range(1, 50)))["unit"].numpy().tolist() == [0]
    for block in range(1, 20):
        assert reader.read(block, _never)["value"].shape == (1, block % 3 + 1)
    assert len(source.read_so_far) <= 26, "a few blocks beyond those that were asked for"
    assert reader.read(40, lambda: iter([41, 42]))["unit"].numpy().tolist() == [40], "another one than was expected"
    assert [int(reader.read(block, _never)["unit"][0]) for block in (41, 42)] == [41, 42]
    reader.close()


def _never() -> Iterator[int]:
    raise AssertionError("what is expected is not asked for again")


def test_a_unit_that_cannot_be_read_is_named_when_its_turn_comes() -> None:
    reader = Reader(Counting(broken=3), Blocks(50))
    for block in range(3):
        reader.read(block, lambda: itertools.count(1))
    with pytest.raises(ValueError, match="Invalid 'file' unit 3"):
        reader.read(3, lambda: itertools.count(4))


def test_a_file_that_is_damaged_is_named(tmp_path: Path, survey: xarray.Dataset) -> None:
    netcdf.write(tmp_path / "survey.nc", survey)
    source = SurveyFile(tmp_path / "survey.nc")
    with h5py.File(tmp_path / "survey.nc", "a") as file:
        del file["observed"]
    with pytest.raises(ValueError, match=r"Invalid 'file' .*survey.nc', shot \[1\]: must be readable, as it was"):
        source.read(np.array([1]))
