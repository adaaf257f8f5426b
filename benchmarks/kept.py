"""Figures of contenders, with the machine that they are of, kept as JSON and compared with those of before."""

import argparse
import datetime
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.training_step import HEAD, rows
from benchmarks.turns import Contender, Timing, ceiling, in_turn
from core.files import read_json, write_json


def measured(groups: Sequence[tuple[list[Contender], int]], most: float) -> dict[str, dict[str, Any]]:
    """Title -> figures, with a table printed on the way."""
    found: dict[str, dict[str, Any]] = {}
    print(HEAD, flush=True)
    for group, rounds in groups:
        timings = in_turn(group, rounds)
        print("\n".join(rows(group, timings, most)), flush=True)
        found |= {
            one.title: figures(one, timing, group[0], timings[0]) for one, timing in zip(group, timings, strict=True)
        }
    return found


def figures(one: Contender, timing: Timing, first: Contender, of_first: Timing) -> dict[str, Any]:
    """What is kept of a contender. faster: how many times as many images a second as the first of its group."""
    speed = one.images / timing.median
    return {**asdict(timing), "images_per_s": 1000 * speed, "faster": speed / (first.images / of_first.median)}


def machine() -> dict[str, Any]:
    """Of what the figures are."""
    import torch

    from core.runtime import code_revision, library_versions

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    about = {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpus": names}
    about |= {"load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None, "system": platform.platform()}
    now = datetime.datetime.now().astimezone().isoformat(timespec="minutes")
    return about | {"versions": library_versions(), "code_revision": code_revision(), "date": now}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def compared(found: Mapping[str, Mapping[str, Any]], last: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown: now over then, of what both have; above 1 is faster now."""
    lines = ["| now / then | images a second | times the first |", "|---|---|---|"]
    for title in [title for title in found if title in last]:
        ratios = [found[title][name] / last[title][name] for name in ("images_per_s", "faster")]
        lines.append(f"| {title} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    return lines


def report(groups: Sequence[tuple[list[Contender], int]], device: str, arguments: argparse.Namespace) -> None:
    """Measure, write JSON, and compare with the last result, where there is one of such a device."""
    start, out, last = time.perf_counter(), arguments.out, arguments.last
    kept = read_json(last) if last.is_file() else {}
    about = machine()
    most = ceiling(device)
    print(
        f"{about['processor']}, {about['threads']} threads, load {about['load']}; ceiling {most:.0f} GFLOP a second.\n"
    )
    found = measured(groups, most)
    result = {"machine": about, "device": device, "ceiling_gflop_per_s": most, "figures": found}
    for path in (out, last) if arguments.keep else (out,):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
    if kept and kept["device"] == device:
        print(f"\nBeside {last} of {kept['machine']['date']} ({kept['machine']['processor']}):\n")
        print("\n".join(compared(found, kept["figures"])))
    print(f"\n{out} written; {time.perf_counter() - start:.0f} s.")


def arguments_of(argv: Sequence[str] | None, text: str, out: str, last: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(out), help="where the figures go (%(default)s)")
    parser.add_argument("--last", type=Path, default=last, help="what they are compared with (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="the figures are the last result from now on")
    return parser.parse_args(argv)
