"""A folder has one owner: another process is refused and told who that is; what a dead one held is free."""

import errno
import gc
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core import owner
from core.command import UserError
from core.owner import LOCK, own

ROOT = Path(__file__).resolve().parent.parent
HOLD = (
    "import sys, time; from pathlib import Path; from core.owner import own\n"
    "owner = own(Path(sys.argv[1])); print('ready', flush=True); time.sleep(600)"
)
FORK = (
    "import os, sys, time; from pathlib import Path; from core.owner import own\n"
    "owner = own(Path(sys.argv[1]))\n"
    "child = os.fork()\n"
    "print(os.getpid(), flush=True) if not child else None\n"
    "time.sleep(600)"
)


@contextmanager
def holder(folder: Path, code: str = HOLD) -> Iterator[tuple[subprocess.Popen, str]]:
    """Another process that has the folder, and what it said when it had."""
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def test_a_second_process_is_told_who_has_the_folder(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as (process, _):
        words = rf"save_path: .*run: is in use by process {process.pid} on {platform.node()} since 20\d\d-.* UTC\. Wait"
        with pytest.raises(UserError, match=words):
            own(tmp_path / "run", "save_path")
        own(tmp_path / "other", "save_path").release()


def test_what_a_killed_process_held_is_free_at_once(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _):
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert json.loads((tmp_path / ".owner").read_text())["process"] == process.pid
        with own(tmp_path):
            assert json.loads((tmp_path / ".owner").read_text())["process"] == os.getpid()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_workers_of_a_killed_process_do_not_hold_it(tmp_path: Path) -> None:
    with holder(tmp_path, FORK) as (process, child):
        try:
            process.send_signal(signal.SIGKILL)
            process.wait()
            os.kill(int(child), 0)  # it lives on
            own(tmp_path).release()
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_worker_that_ends_leaves_the_folder_to_its_parent(tmp_path: Path) -> None:
    with own(tmp_path):
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0,))
        worker.start()
        worker.join()
        assert (tmp_path / ".owner").is_file()
        asked = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
        assert f"is in use by process {os.getpid()}" in asked.stderr


def test_a_process_may_take_its_own_folder_again(tmp_path: Path) -> None:
    with own(tmp_path):
        with own(tmp_path):
            pass
        assert (tmp_path / ".owner").is_file()


def test_nothing_is_left_of_a_folder_that_stayed_empty(tmp_path: Path) -> None:
    with own(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / ".owner").is_file()
    assert not list(tmp_path.iterdir())
    with own(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "weights.pt").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["weights.pt"]


def test_two_files_of_a_folder_have_owners_of_their_own(tmp_path: Path) -> None:
    with own(tmp_path, of="a.pt"), own(tmp_path, of="b.pt"):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".a.pt.owner", ".b.pt.owner"]


@pytest.mark.parametrize("process, is_refused", [("alive", True), ("dead", False), ("elsewhere", True)])
def test_without_locks_the_file_tells(
    process: str, is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(owner, "fcntl", type("NoLocks", (), {"flock": no_locks, "LOCK_EX": 0, "LOCK_NB": 0}))
    host = "another" if process == "elsewhere" else platform.node()
    number = os.getppid() if process == "alive" else 99999999
    (tmp_path / ".owner").write_text(json.dumps({"host": host, "process": number, "since": "yesterday"}))
    if is_refused:
        with pytest.raises(UserError, match=rf"by process {number} on {host} since yesterday.*remove .*\.owner"):
            own(tmp_path)
    else:
        own(tmp_path).release()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"[" * 3000, b'{"process": [1]}'])
def test_a_lock_file_of_anything_is_taken_over(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".owner").write_bytes(content)
    own(tmp_path).release()


def test_only_one_of_many_at_once_gets_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from core.owner import own; from core.command import UserError\n"
        "sys.stdin.readline()\n"
        "for _ in range(300):\n"
        "    try: owner = own(Path(sys.argv[1]))\n"
        "    except UserError: continue\n"
        "    mine = Path(sys.argv[1]) / 'mine'; mine.open('x').close(); mine.unlink(); owner.release()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    (tmp_path / "run").mkdir()
    many = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    said = [process.communicate(b"\n", timeout=60)[1] for process in many]
    assert [process.returncode for process in many] == [0] * 4, said


def test_who_asks_again_in_the_same_process_keeps_the_first_alive(tmp_path: Path) -> None:
    first = own(tmp_path, "save_path")
    second = own(tmp_path, "save_path")
    assert first.file is not None and second.first is first
    del first
    gc.collect()
    assert (tmp_path / LOCK).is_file()
    second.release()


def test_a_file_that_another_user_left_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK).write_text("{}")
    usual = Path.open

    def forbidden(self: Path, mode: str = "r", *rest: object, **options: object) -> object:
        if self.name == LOCK:  # a superuser, as in a container, is forbidden nothing
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return usual(self, mode, *rest, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(
        UserError, match=r"\.owner: was left by another user, and you may not write it .*have it removed"
    ):
        own(tmp_path, "save_path")
    (tmp_path / LOCK).unlink()
    with pytest.raises(PermissionError):
        own(tmp_path, "save_path")
