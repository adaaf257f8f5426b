"""`python -m preprocess`: quick answers, exit codes, any terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.command import UserError
from preprocess import __main__ as program
from preprocess.commands import COMMANDS
from preprocess.synthetic.dataset import make_dataset

ROOT = Path(__file__).resolve().parent.parent
SLOW = ("torch", "scipy", "matplotlib", "av", "PIL")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "preprocess", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_parser_of_its_name(name: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit, match="0"):
        program.main([name, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: python -m preprocess {name} ")


def test_help_names_every_command_and_imports_none(capsys: pytest.CaptureFixture):
    code = (
        "import sys; from preprocess.__main__ import parse\n"
        "try: parse(['--help'])\n"
        "finally: print([name for name in sys.modules if name.startswith(('numpy', 'cv2', 'preprocess.datasets'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("[]\n")
    said = " ".join(done.stdout.split())
    assert all(f"{name} {command.help}" in said for name, command in COMMANDS.items())


@pytest.mark.parametrize("words", [("images", "--wrong"), ("images", "photos"), ("columbia", "--workers", "x")])
def test_a_wrong_flag_is_said_before_anything_slow_is_loaded(words: tuple[str, ...]):
    code = (
        "import sys; from preprocess.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        f"finally: print([name for name in {SLOW} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "[]\n") and "error: " in done.stderr


def raising(error: BaseException):
    def import_module(name: str) -> None:
        raise error

    return import_module


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "Stopped; nothing was written.\n"),
        (UserError("--out: no."), 2, "python -m preprocess images: --out: no.\n"),
        (PermissionError(13, "Permission denied", "a.h5"), 2, "images: [Errno 13] Permission denied: 'a.h5'\n"),
    ],
)
def test_what_is_foreseen_ends_with_one_line(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Here while the command is imported, where Ctrl-C used to show a traceback."""
    monkeypatch.setattr(program.importlib, "import_module", raising(error))
    assert program.main(["images"]) == code
    shown = capsys.readouterr().err
    assert shown.endswith(said) and shown.count("\n") == 1


def test_a_mistake_of_the_program_shows_its_traceback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(program.importlib, "import_module", raising(ValueError("shapes")))
    with pytest.raises(ValueError, match="shapes"):
        program.main(["images"])


def test_ctrl_c_while_a_worker_begins_is_left_to_its_parent(tmp_path: Path):
    """A process of a pool imports the main module first; here it gets Ctrl-C just then."""
    (tmp_path / "main.py").write_text(
        "import os, signal, sys\n"
        "if __name__ != '__main__': os.kill(os.getpid(), signal.SIGINT)\n"
        "from preprocess.__main__ import main\n"
        "if __name__ == '__main__': sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["synthetic", "--out", str(tmp_path / "out"), "--persons", "4", "--samples", "2", "--image-size", "64"]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "main.py"), *words, "--workers", "2"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_a_terminal_without_the_signs_shows_the_rest(tmp_path: Path):
    make_dataset(tmp_path, persons=4, samples=2, seed=0, image_size=64, workers=1, progress=False)
    done = run("verify", str(next(tmp_path.glob("*.h5"))), PYTHONIOENCODING="ascii")
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr
    assert "\\xb1" in done.stdout  # plus or minus
