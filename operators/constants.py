"""Physical constants and the unit factors that convert what people write in files to SI."""

#: Newton's constant, m3 kg-1 s-2 (CODATA 2018, the value choclo uses).
GRAVITATIONAL_CONSTANT = 6.6743e-11

#: Factors to SI of every unit a file or a config may name: value_in_SI = value * factor.
UNITS = {
    "m/s2": 1.0,
    "mGal": 1e-5,
    "uGal": 1e-8,
    "gu": 1e-6,
    "1/s2": 1.0,
    "eotvos": 1e-9,
    "kg/m3": 1.0,
    "g/cc": 1e3,
    "g/cm3": 1e3,
    "m": 1.0,
    "km": 1e3,
    "ft": 0.3048,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
}

#: What each unit measures; two units convert into one another only within a row.
QUANTITIES = {
    "acceleration": ("m/s2", "mGal", "uGal", "gu"),
    "gradient": ("1/s2", "eotvos"),
    "density": ("kg/m3", "g/cc", "g/cm3"),
    "length": ("m", "km", "ft"),
    "time": ("s", "ms", "us"),
}

#: How files spell the units that data must be in (the attribute `units` of the CF conventions), in lower case.
SPELLINGS = {
    "m": ("m", "metre", "metres", "meter", "meters"),
    "s": ("s", "sec", "second", "seconds"),
    "m/s": ("m/s", "m s-1", "m s^-1", "m s**-1", "m.s-1", "m/sec", "meters/second", "metres/second", "meter/second", "metre/second"),
    "km/s": ("km/s", "km s-1", "km s^-1", "km s**-1", "km.s-1"),
    "s2/km2": ("s2/km2", "s2 km-2", "s^2/km^2", "s**2/km**2", "s2.km-2"),
    "kg/m3": ("kg/m3", "kg m-3", "kg/m^3", "kg m^-3", "kg m**-3", "kg/m**3", "kg.m-3"),
}
