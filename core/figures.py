"""Plots without a display: whatever the user's environment says of matplotlib's backend, files are drawn by Agg."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(size: tuple[float, float]) -> "Figure":
    """An empty figure of so many inches, whose parts keep clear of one another; `savefig` needs no display.

    pyplot must stay out of it: it would look for a display, and take the backend that the user's environment names.
    """
    with any_backend():  # half a second to import, so only where a plot is drawn
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def any_backend() -> Iterator[None]:
    """Import matplotlib, or what imports it, in here: a notebook hands its MPLBACKEND to the commands it starts.

    Where that names a backend that is not installed here, matplotlib cannot be imported.
    """
    named = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named
