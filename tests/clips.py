"""Small videos with sound, written frame by frame, and what is in them."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

CLOCK = Fraction(1, 1000)


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[int] | None = None,
    *,
    sound: str | None = "aac",
    turn: int = 0,
    colours: dict[str, int] | None = None,
    options: dict[str, str] | None = None,
    **metadata: str,
) -> Path:
    """Frames (H, W, 3) uint8 RGB at times in milliseconds, by default 40 apart. sound: its codec.  turn: degrees."""
    times = times or [40 * number for number in range(len(frames))]
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update(metadata)
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "4", "preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", CLOCK
        if turn and not hasattr(stream, "set_display_rotation"):
            pytest.skip("PyAV 17 reads turned videos, but cannot write one")
        if turn:
            stream.set_display_rotation(turn)
        for name, value in (colours or {}).items():
            setattr(stream.codec_context, name, value)
        track = container.add_stream(sound, rate=48_000, layout="mono") if sound else None
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = time, CLOCK
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        if track is not None:
            _write_tone(container, track, times[-1] / 1000)
    return path


def _write_tone(container: Any, track: Any, seconds: float) -> None:
    size = track.codec_context.frame_size or 1024
    for first in range(0, int(48_000 * seconds), size):
        wave = 8000 * np.sin((first + np.arange(size)) / 20)
        block = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
        block.sample_rate, block.pts, block.time_base = 48_000, first, Fraction(1, 48_000)
        container.mux(track.encode(block))
    container.mux(track.encode())


def frames_of(path: Path) -> list[np.ndarray]:
    """(H, W, 3) uint8 RGB each; all of them, so the file plays."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def times_of(path: Path) -> list[float]:
    """Of its frames, milliseconds."""
    with av.open(str(path)) as container:
        return [round(1000 * frame.time, 1) for frame in container.decode(video=0)]


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    """Times in milliseconds and bytes of the packets of sound."""
    with av.open(str(path)) as container:
        packets = container.demux(audio=0)
        return [(round(1000 * float(p.pts * p.time_base), 1), bytes(p)) for p in packets if p.pts is not None]


def metadata_of(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)
