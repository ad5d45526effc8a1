"""The source wavelet of the config, at the survey's samples: analytic, or of a file, which may hold one for each shot.

Nothing here imports TensorFlow.
"""

from pathlib import Path

import numpy as np
import xarray

from geoinv.datasets import netcdf, shots
from geoinv.operators import checks
from geoinv.operators.seismic import resampling, wavelets

from .config import Source
from .survey import NETCDF

#: Of its peak of 1: what an analytic wavelet must reach within the records.
REACHED = 0.5


def read_wavelet(source: Source, survey: xarray.Dataset, numbers: np.ndarray) -> np.ndarray:
    """The wavelet of the config's [source], [time] or [shot, source, time].

    Args:
        source: The options.
        survey: The shots that are inverted.
        numbers: Which of the data file's these are [shot].

    Raises:
        ValueError: A file that cannot be read or is of other shots, frequencies too high, or nothing within the records.
    """
    samples, dt = survey.sizes["time"], shots.dt(survey)
    if source.wavelet == "file":
        signal = _of_file(source, survey, numbers)
    elif source.wavelet == "ormsby":
        assert source.corners is not None  # the config checks it
        signal = _within(source, wavelets.ormsby(source.corners, samples, dt, delay=source.delay), samples * dt)
    else:
        below_nyquist("source.frequency", source.frequency, 2 * dt)  # a Ricker wavelet's band reaches about that far beyond its peak
        signal = _within(source, wavelets.ricker(source.frequency, samples, dt, delay=source.delay), samples * dt)
    if not signal.any():
        raise checks.invalid("source", "with a wavelet of zeros", f"other than zero in the {samples * dt:g} s of the records")
    return source.amplitude * signal


def below_nyquist(name: str, frequency: float, dt: float) -> None:
    """Refuse a frequency, Hz, that samples every dt s do not hold."""
    if frequency >= 0.5 / dt:
        raise checks.invalid(name, f"{frequency:g} Hz", f"below {0.5 / dt:g} Hz, as the sampling interval asks")


def _within(source: Source, signal: np.ndarray, length: float) -> np.ndarray:
    """An analytic wavelet, if its peak lies within the records."""
    if np.abs(signal).max() >= REACHED:
        return signal
    if source.delay is not None:
        raise checks.invalid("source.delay", f"{source.delay:g} s", f"below the {length:g} s of the records", "Off, it is chosen.")
    name = "frequency" if source.wavelet == "ricker" else "corners"
    given = f"{getattr(source, name)} Hz, which makes a wavelet that peaks after the end of the records"
    raise checks.invalid(f"source.{name}", given, f"such that it peaks within their {length:g} s", "Is it in hertz? Or give source.delay.")


def _of_file(source: Source, survey: xarray.Dataset, numbers: np.ndarray) -> np.ndarray:
    samples, dt, path = survey.sizes["time"], shots.dt(survey), str(source.file)
    if Path(path).suffix.lower() not in NETCDF:
        return wavelets.read(path, dt=dt, n=samples)
    signals = _signals(path)
    if "shot" in signals.dims:
        signals = _of_shots(path, signals, survey, numbers)
        if source.estimate and not source.per_shot:
            advice = "Or estimate = false, to take them as they are."
            raise checks.invalid("source.per_shot", "false with a source.file of one wavelet for each shot", "true", advice)
    time = signals["time"].values
    last = int(np.floor(time[-1] / dt + 1e-6))
    interval = (time[-1] - time[0]) / (time.size - 1)
    return wavelets.fit_length(resampling.resample(signals.values, interval, dt, last + 1, start=float(time[0])), samples)


def _of_shots(path: str, signals: xarray.DataArray, survey: xarray.Dataset, numbers: np.ndarray) -> xarray.DataArray:
    """Those of some of the data file's shots, [shot, source, time]."""
    count, firing = signals.sizes["shot"], shots.acquisition_arrays(survey)[0].shape[1]
    if count <= numbers.max():
        raise checks.invalid("source.file", f"'{path}' with {count} shots", f"of every shot of the data file, {numbers.max() + 1} or more")
    signals = signals if "source" in signals.dims else signals.expand_dims("source")
    if signals.sizes["source"] != firing:
        raise checks.invalid("source.file", f"'{path}' with {signals.sizes['source']} sources a shot", f"with {firing}, as the survey")
    return signals.isel(shot=numbers).transpose("shot", "source", "time")


def _signals(path: str) -> xarray.DataArray:
    """The variable 'wavelet' of a netCDF file, over (time), (shot, time) or (shot, source, time)."""
    data = netcdf.read(path)
    layouts = ({"time"}, {"shot", "time"}, {"shot", "source", "time"})
    if "wavelet" not in data or set(data["wavelet"].dims) not in layouts or "time" not in data["wavelet"].coords:
        given = f"'{path}' with {', '.join(f'{name} {each.dims}' for name, each in data.variables.items())}"
        expected = "a file with 'wavelet' over (time), (shot, time) or (shot, source, time), and with 'time' in s"
        raise checks.invalid("source.file", given, expected)
    for name in ("wavelet", "time"):
        if data[name].dtype.kind not in "fiu":
            raise checks.invalid(f"source.file {name}", f"of type {data[name].dtype}", "numbers")
    checks.in_unit("source.file time", data["time"].attrs, "s")
    checks.finite("source.file", data["wavelet"].values)
    time = checks.increasing("source.file time", data["time"].values)
    steps = np.diff(time)
    if time[0] < 0 or np.ptp(steps) > 0.02 * steps.min():
        given = f"from {time[0]:g} s on, every {steps.min():g} to {steps.max():g} s"
        raise checks.invalid("source.file time", given, "evenly spaced, from zero or later on", "Delay or resample the wavelets.")
    return data["wavelet"]
