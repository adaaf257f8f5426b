"""A run's newest checkpoint as a small file to give away: `python -m core.redirection.pack RUN FILE.pt`.

What redirecting needs and no more: weights in half precision, settings, and which code it was trained by; no optimiser,
no discriminator. `--checkpoint` takes it like any other.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from checkpoints_manager import read_checkpoint
from core.command import answer
from core.files import require_writable
from core.redirection.load import checkpoint_of, load
from core.torch_files import write_torch_file
from core.tracking import say

KEPT = ("step", "format_version", "config", "code_revision")


def pack(run: Path, out: Path) -> int:
    """Write the file, and return its bytes. Raises UserError if the run's checkpoint cannot redirect photographs."""
    redirector = load(run, device="cpu").redirector
    content = read_checkpoint(checkpoint_of(run))
    modules = {name: _halved(content[name]) for name, _ in redirector.named_children()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_torch_file(out, modules | {name: content[name] for name in KEPT if name in content})
    return out.stat().st_size


def _halved(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for what cannot be used."""
    parser = argparse.ArgumentParser("python -m core.redirection.pack", description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder, or a checkpoint's file")
    parser.add_argument("out", type=Path, metavar="FILE.pt")
    arguments = parser.parse_args(argv)

    def run() -> None:
        require_writable(arguments.out.parent, "FILE.pt")
        say(f"Wrote {arguments.out}, {pack(arguments.run, arguments.out) / 1e6:.1f} MB.")

    return answer("pack", run)


if __name__ == "__main__":
    sys.exit(main())
