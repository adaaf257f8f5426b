"""A run folder may be passed on: it tells nothing of who made it and where."""

# ruff: noqa: F811  the fixture setup is imported

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import matplotlib
import pytest

from tests.test_train_st_ed import ROOT, setup  # noqa: F401  a fixture

FAIL = (
    "import sys; from core.trainer import RedirectionTrainer; import train_st_ed\n"
    "RedirectionTrainer.mixing_mask = lambda *_: 1 / 0\n"
    "sys.argv = [train_st_ed.__file__, *sys.argv[1:]]\n"
    "sys.exit(train_st_ed.main())"
)


@pytest.mark.parametrize("ends", ["done", "failed"])
def test_no_place_no_user_and_no_secret_is_in_a_run_folder(setup: Path, ends: str) -> None:
    home = setup / "home-of-alice"
    (home / "work").mkdir(parents=True)
    for path in [path for path in setup.iterdir() if path != home]:
        path.rename(home / "work" / path.name)
    environment = os.environ | {
        "HOME": str(home),
        "USER": "alice",
        "API_TOKEN": "s3cr3t-t0ken",
        "PYTHONPATH": str(ROOT),
        "MPLCONFIGDIR": matplotlib.get_configdir(),  # else its list of fonts is made anew, which takes seconds
    }
    start = ["-c", FAIL] if ends == "failed" else [str(ROOT / "train_st_ed.py")]
    command = [sys.executable, *start, str(home / "work/config.json"), "--use-mixing"]
    done = subprocess.run(command, cwd=home / "work", env=environment, capture_output=True, text=True)
    assert done.returncode == (1 if ends == "failed" else 0), done.stderr
    run = home / "work/run"
    assert (run / "error.txt").is_file() == (ends == "failed")
    found = []
    for path in [path for path in run.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                content = b"".join(archive.read(name) for name in archive.namelist())
        places = (str(ROOT), str(setup), sys.prefix, sys.base_prefix, "s3cr3t-t0ken")
        found += [(path.name, place) for place in places if place.encode() in content]
    assert found == []
