"""A kill in the middle of a real conversion: the same command goes on, and the file is that of one that never stopped.

Images of two persons are named pipes, which nobody writes to: whoever reads one waits. So both workers are stopped in
the middle of a person, while another is finished and another not begun, however fast the machine is.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from preprocess import conversion
from preprocess.__main__ import main
from tests import test_columbia, test_eth_xgaze, test_eyediap, test_gazecapture, test_mpiifacegaze

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120  # seconds: of a machine that has much else to do


@dataclass(frozen=True)
class Tree:
    """Raw data of four persons.

    persons: in the order of the conversion.  stops: files that the second and the third person's last samples need.
    leased: open files, of those.
    """

    command: str
    raw: Path
    persons: list[str]
    stops: list[Path]
    options: tuple[str, ...]
    leased: list[int] = field(default_factory=list)

    def arguments(self, out: Path, workers: int) -> list[str]:
        """Of `python -m preprocess`."""
        return [self.command, "--raw", str(self.raw), "--out", str(out), "--workers", str(workers), *self.options]


def landmarks(root: Path) -> tuple[str, ...]:
    return "--landmarks", str(root / "landmarks"), "--min-coverage", "0.9"


def gazecapture(root: Path) -> Tree:
    persons, parts = ["00002", "00003", "00028", "00033"], ["train", "train", "val", "test"]
    for i, (person, part) in enumerate(zip(persons, parts, strict=True)):
        shots = test_gazecapture.shots_of(test_gazecapture.PORTRAIT, 2, seed=i)
        test_gazecapture.write_recording(root / "raw", person, shots, part=part)
    stops = [root / "raw" / person / "frames/00001.jpg" for person in persons[1:3]]
    return Tree("gazecapture", root / "raw", persons, stops, landmarks(root))


def mpiifacegaze(root: Path) -> Tree:
    persons = ["p00", "p01", "p02", "p03"]
    for i, person in enumerate(persons):
        test_mpiifacegaze.write_person(root / "raw", person, test_mpiifacegaze.shots_of(2, seed=i))
    stops = [root / "raw" / person / "day01/0008.jpg" for person in persons[1:3]]
    return Tree("mpiifacegaze", root / "raw", persons, stops, landmarks(root))


def columbia(root: Path) -> Tree:
    persons, angles = ["0001", "0002", "0003", "0004"], [(0, 0, 0), (15, 10, -5)]
    for i, person in enumerate(persons):
        test_columbia.write_person(root / "raw", person, angles, seed=i)
    stops = [root / "raw" / test_columbia.DATA / test_columbia.name_of(p, *angles[1]) for p in persons[1:3]]
    return Tree("columbia", root / "raw", persons, stops, landmarks(root))


def eyediap(root: Path) -> Tree:
    persons = ["1", "2", "3", "14"]
    for i, person in enumerate(persons):
        for kind in ("A_DS_S", "B_DS_S"):
            test_eyediap.write_session(root / "raw", f"{person}_{kind}", test_eyediap.shots_of(i))
    stops = [root / "raw/Data" / f"{person}_B_DS_S/rgb_vga.mov" for person in persons[1:3]]
    return Tree("eyediap", root / "raw", persons, stops, landmarks(root))


def eth_xgaze(root: Path) -> Tree:
    persons = [f"subject{i:04d}" for i in (0, 3, 4, 7)]
    for i, person in enumerate(persons):
        test_eth_xgaze.write_subject(root / "raw", person, {0: test_eth_xgaze.shots_of(0, 2, seed=i)})
    stops = [root / "raw/data/train" / person / "frame0001/cam00.JPG" for person in persons[1:3]]
    return Tree("eth-xgaze", root / "raw", persons, stops, ("--min-coverage", "0.9"))


def content(folder: Path) -> dict[str, bytes | None]:
    """Name -> bytes of what is in a folder; None of what is no file."""
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


def start_and_stop(tree: Tree, out: Path) -> subprocess.Popen:
    """The command with two workers, which wait in the middle of the second and the third person.

    For a file that this process has leased: who opens it waits until it is given back, 45 s by default.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # that somebody waits
    tree.leased.extend(os.open(stop, os.O_RDONLY) for stop in tree.stops)
    for file in tree.leased:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    command = [sys.executable, "-m", "preprocess", *tree.arguments(out, workers=2)]
    out.parent.mkdir()
    said = out.with_name("said.txt")
    with said.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
    parts, latest = out.with_name(f".{out.name}.parts"), time.monotonic() + PATIENCE
    while not ((parts / f"{tree.persons[0]}.h5").exists() and len(begun(parts)) == 2):
        if process.poll() is not None or time.monotonic() > latest:
            end(process)
            pytest.fail(f"{tree.command} ended, or came to nothing, before it could be killed: {said.read_text()}")
        time.sleep(0.02)
    said.unlink()
    return process


def begun(parts: Path) -> dict[str, int]:
    """Person -> process, of those that are being converted."""
    names = [path.name.removeprefix(".").removesuffix(".tmp") for path in parts.glob(".*.tmp")]
    return {name.rpartition(".h5.")[0]: int(name.rpartition(".")[2]) for name in names}


def end(process: subprocess.Popen) -> None:
    """Kills the process and its workers, those that are left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def go_on(tree: Tree) -> None:
    """Lets the files be opened again."""
    while tree.leased:
        os.close(tree.leased.pop())


def is_alive(process: int) -> bool:
    """Whether it still works; one that nobody has asked for its exit code does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


@pytest.fixture(autouse=True)
def same_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_now", lambda: "2026-01-02T03:04:05Z")


@pytest.mark.parametrize("make", [gazecapture, mpiifacegaze, columbia, eyediap, eth_xgaze])
def test_after_a_kill_the_same_bytes(make: Callable[[Path], Tree], tmp_path: Path, capsys) -> None:
    tree, whole, killed = make(tmp_path), tmp_path / "whole", tmp_path / "killed"
    assert main(tree.arguments(whole / "out.h5", workers=1)) == 0
    process, parts = start_and_stop(tree, killed / "out.h5"), killed / ".out.h5.parts"
    end(process)
    assert process.returncode == -signal.SIGKILL and set(content(killed)) == {parts.name}
    assert [path.name for path in parts.glob("[!.]*.h5")] == [f"{tree.persons[0]}.h5"]
    assert begun(parts).keys() == set(tree.persons[1:3])  # and of the fourth there is nothing
    go_on(tree)
    capsys.readouterr()
    assert main(tree.arguments(killed / "out.h5", workers=2)) == 0
    assert "1 of 4 persons were converted before." in capsys.readouterr().out
    assert content(killed) == content(whole) and not (killed / parts.name).exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Or they would go on with their persons beside those of the next run."""
    tree, out = columbia(tmp_path), tmp_path / "out" / "out.h5"
    process = start_and_stop(tree, out)
    workers, latest = begun(out.with_name(".out.h5.parts")).values(), time.monotonic() + PATIENCE
    try:
        assert all(map(is_alive, workers))
        process.kill()
        process.wait()
        while any(map(is_alive, workers)) and time.monotonic() < latest:
            time.sleep(0.02)
        assert not any(map(is_alive, workers))
    finally:
        end(process)
    go_on(tree)
    assert main(tree.arguments(out, workers=1)) == 0
