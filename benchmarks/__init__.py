"""Measurements, each a command: `python -m benchmarks.NAME --help`; what they gave: README.md here."""

import core  # noqa: F401  before torch is loaded, see there
