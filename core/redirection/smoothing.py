"""The one-euro filter: what stands still is held still, and what moves is followed with little delay.

Source: Casiez, Roussel and Vogel, 1-euro Filter, CHI 2012, algorithms 1 and 2.
"""

import math

import numpy as np
from numpy import ndarray

SPEED_CUTOFF = 1.0  # Hz, of the speed that decides; the published choice


class OneEuro:
    """Smooths values that come one after another, each of them by its own speed.

    cutoff: Hz, of what stands still: lower is calmer.  beta: Hz for each unit a second: higher follows sooner.
    """

    def __init__(self, cutoff: float, beta: float) -> None:
        self._cutoff, self._beta = cutoff, beta
        self._time, self._value, self._speed = -math.inf, np.zeros(0), np.zeros(0)

    def __call__(self, value: ndarray, time: float) -> ndarray:
        """The smoothed value, of the same shape. time: seconds; a value of no later time than the last begins anew."""
        step = time - self._time
        if not 0 < step < math.inf:
            self._time, self._value, self._speed = time, value, np.zeros_like(value)
            return value
        speed = (value - self._value) / step
        self._speed = self._speed + _share(SPEED_CUTOFF, step) * (speed - self._speed)
        share = _share(self._cutoff + self._beta * np.abs(self._speed), step)
        self._time, self._value = time, self._value + share * (value - self._value)
        return self._value


def _share(cutoff: float | ndarray, step: float) -> float | ndarray:
    """How much of a new value is taken by a low-pass filter of a cutoff in Hz, a step of seconds after the last."""
    return 1 / (1 + 1 / (2 * math.pi * step * cutoff))
