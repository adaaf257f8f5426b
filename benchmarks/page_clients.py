"""Many people on the page at once: `python -m benchmarks.page_clients PHOTO --clients 50 --seconds 120`.

Starts demo.py on this computer, and clients that do as a browser does: each uploads the photograph, opens it, moves the
gaze again and again, and downloads. Told are latencies, from an event to its answer with the wait for the others, what
failed, the server's memory, and what is left of its files when it was stopped. Needs requirements-page.txt.
"""

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.command import UserError, answer

ROOT = Path(__file__).resolve().parent.parent
API = "gradio_api"
PATIENCE = 600  # seconds for one answer


@dataclass
class Seen:
    """By all clients together: seconds by event, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str, seconds: float) -> None:
        with self.lock:
            self.seconds.setdefault(what, []).append(seconds)


class Client:
    """One browser. events: numbers of the page's functions, by (element, event)."""

    def __init__(self, address: str, name: str, seen: Seen) -> None:
        import httpx

        self.http, self.session, self.seen = httpx.Client(base_url=address, timeout=PATIENCE), name, seen
        config = self.http.get("config").raise_for_status().json()
        names = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
        self.redirector = next(p["props"]["value"] for p in config["components"] if names[p["id"]] == "redirector")
        self.events = {
            (names.get(where), event): call["id"] for call in config["dependencies"] for where, event in call["targets"]
        }

    def ask(self, element: str, event: str, values: list[Any]) -> list[Any]:
        """The answer to an event. Raises OSError where the page refuses it."""
        start = time.monotonic()
        asked = {"data": values, "fn_index": self.events[element, event], "session_hash": self.session}
        self.http.post(f"{API}/queue/join", json=asked).raise_for_status()
        with self.http.stream("GET", f"{API}/queue/data", params={"session_hash": self.session}) as lines:
            for line in lines.iter_lines():
                said = json.loads(line[5:]) if line.startswith("data:") else {}
                if said.get("msg") == "process_completed":
                    self.seen.add(f"{element}", time.monotonic() - start)
                    if not said["success"]:
                        raise OSError(f"{element}: {said['output']}")
                    return said["output"]["data"]
        raise OSError(f"{element}: no answer")

    def stay(self, photo: Path, end: float, rng: random.Random) -> None:
        """Use the page until then."""
        pad = {"at": [0, 0], "start": [0, 0], "moved": False}
        while time.monotonic() < end:
            with photo.open("rb") as file:
                files = {"files": (photo.name, file)}
                path = self.http.post(f"{API}/upload", files=files).raise_for_status().json()[0]
            image = {"path": path, "orig_name": photo.name, "meta": {"_type": "gradio.FileData"}}
            self.ask("photo", "change", [image, self.redirector, None])
            for _ in range(10):
                if time.monotonic() > end:
                    return
                gaze = pad | {"at": [rng.randint(-20, 20), rng.randint(-20, 20)], "moved": True}
                self.ask("gaze", "input", [None, "every face", gaze, pad, False])
            made = self.ask("save", "click", [None, "every face", gaze, pad])[0]
            content = self.http.get(f"{API}/file={made['path'] if 'path' in made else made['value']['path']}")
            if not content.raise_for_status().content:
                raise OSError("an empty download")


@contextmanager
def served(folder: Path, more: Sequence[str]) -> Iterator[tuple[str, int]]:
    """The address of a page whose temporary files are in the folder, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-u", str(ROOT / "demo.py"), "--port", port, "--device", "cpu", *more]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("Open http"):
                raise UserError("demo.py", f"it did not start ({line.strip()})", remedy="Start it alone to see why.")
            yield line.split()[1], process.pid
        finally:
            process.send_signal(signal.SIGINT)


def megabytes(pid: int) -> float:
    """What a process has in memory; Linux alone tells so."""
    [line] = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def use(address: str, pid: int, photo: Path, clients: int, seconds: int) -> tuple[Seen, list[float]]:
    """What all clients saw, and the page's memory by the second, MB."""
    seen, memory, end = Seen(), [megabytes(pid)], time.monotonic() + seconds

    def run(number: int) -> None:
        try:
            Client(address, f"client{number}", seen).stay(photo, end, random.Random(number))
        except Exception as error:  # of any kind: it is told, and the others go on
            seen.wrong.append(f"client {number}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and time.monotonic() < end + PATIENCE:
        time.sleep(1)
        memory.append(megabytes(pid))
    return seen, memory


def table(seen: Seen) -> Iterator[str]:
    """Markdown rows."""
    yield "| event | answers | median, s | 95 %, s | longest, s |\n|---|---|---|---|---|"
    for what, taken in seen.seconds.items():
        late = sorted(taken)[int(0.95 * (len(taken) - 1))]
        yield f"| {what} | {len(taken)} | {statistics.median(taken):.1f} | {late:.1f} | {max(taken):.1f} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path, metavar="PHOTO")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--checkpoint", metavar="RUN")
    arguments = parser.parse_args(argv)
    more = ["--checkpoint", arguments.checkpoint] if arguments.checkpoint else []

    def run() -> int:
        with tempfile.TemporaryDirectory() as folder:
            with served(Path(folder), more) as (address, pid):
                seen, memory = use(address, pid, arguments.photo, arguments.clients, arguments.seconds)
            left = [path.name for path in Path(folder).glob("redirect-page-*")]
        print("\n".join(table(seen)))
        parts = [memory[round(part * (len(memory) - 1))] for part in (0, 0.25, 0.5, 0.75, 1)]
        print(f"memory at the start, after each quarter: {', '.join(f'{part:.0f}' for part in parts)} MB")
        print(f"{len(seen.wrong)} clients stopped early {seen.wrong[:3]}; files left: {left}")
        return int(bool(seen.wrong or left))

    return answer("page_clients", run)


if __name__ == "__main__":
    sys.exit(main())
