"""demo.py: what is asked on the command line, and the page until the user stops it."""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from core.command import UserError
from core.redirection.arguments import add_checkpoint
from core.tracking import say

if TYPE_CHECKING:
    from core.page.choices import Choice
    from core.page.layout import Page

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = (ROOT / "docs/pictures/astronaut.jpg",)
HERE = ("127.0.0.1", "localhost")
MISSING = "the page needs gradio, which is not installed; install it: pip install -r requirements-page.txt"
SETTINGS = {  # nothing of what happens on the page is reported or kept anywhere
    "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "GRADIO_SSR_MODE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}  # fmt: skip


def parse(argv: Sequence[str] | None, description: str) -> argparse.Namespace:
    """What is asked on the command line; None is this process's own."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("demo.py", description=description, formatter_class=raw)
    add_checkpoint(parser)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="whose run folders are offered (%(default)s)"
    )
    parser.add_argument("--host", default=HERE[0], help="who may use it; 0.0.0.0 is everybody (%(default)s)")
    parser.add_argument("--port", type=int, help="default: the first that is free from 7860 on")
    return parser.parse_args(argv)


def serve(arguments: argparse.Namespace) -> None:
    """Show the page until the user stops it. Raises UserError or OSError with a message for the user."""
    from core.page.choices import find_choices  # slow, as all below it

    choices = find_choices(arguments.runs, arguments.checkpoint, arguments.config)
    with page_settings():
        page = make_page(choices, arguments.device)
        page.events.load(choices[0].name)  # what is wrong with it is told before the page opens
        address = page.launch(arguments.host, arguments.port)
        say(f"Open {address} in a browser. Ctrl-C ends the page and deletes its pictures.")
        if arguments.host not in HERE:
            say("It is open to everybody who can reach this computer; each sees their own pictures alone.")
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)
        page.blocks.close(verbose=False)


def make_page(choices: "Sequence[Choice]", device: str) -> "Page":
    """Raises UserError where gradio is missing."""
    if find_spec("gradio") is None:
        raise UserError(MISSING)
    from core.page.layout import Page

    return Page(choices, device, EXAMPLES)


@contextmanager
def page_settings() -> Iterator[Path]:
    """Before gradio is imported: nothing is reported to anybody; its files lie in a folder that goes at last."""
    with tempfile.TemporaryDirectory(prefix="redirect-page-") as folder:
        os.environ.update(SETTINGS, GRADIO_TEMP_DIR=folder)
        yield Path(folder)
