"""The files of a data set appear together: made in a hidden folder, renamed when all are whole, then moved out.

After a kill in between the next command moves what is left; what says "done" goes last.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from core.files import read_json, write_json
from core.owner import own, own_when_free
from preprocess.synthetic.domains import DOMAINS

_WHOLE, _RECIPE = ".synthetic-whole", ".recipe"


def finish_moving(out: Path) -> Mapping[str, object]:
    """Move what a killed command had made in full; returns what it was made by, nothing if there is none.

    Waits where another process is at it.
    """
    whole = out / _WHOLE
    if not whole.is_dir():
        return {}
    with own_when_free(out):
        if not whole.is_dir():
            return {}
        recipe = read_json(whole / _RECIPE) if (whole / _RECIPE).is_file() else {}
        # The training file stands for all to whoever asks whether there is a data set.
        for path in sorted(whole.iterdir(), key=lambda path: path.name.startswith(DOMAINS[0].name)):
            if path.name != _RECIPE:
                os.replace(path, out / path.name)
        shutil.rmtree(whole)
    return recipe


@contextmanager
def made_together(out: Path, recipe: Mapping[str, object]) -> Iterator[Path]:
    """A folder for the files, which then are in `out`; if it fails, nothing of them is left.

    recipe: what they are made by, as JSON has it.  Raises UserError if another process writes there.
    """
    with own(out):
        for left in out.glob(".synthetic-*"):  # of commands that were killed
            shutil.rmtree(left)
        partial = Path(tempfile.mkdtemp(prefix=".synthetic-", dir=out))
        try:
            yield partial
            write_json(partial / _RECIPE, recipe)
            os.replace(partial, out / _WHOLE)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finish_moving(out)
