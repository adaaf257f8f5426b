"""The machine: device, threads, memory, precision, random numbers of a step, and a request to stop."""

import ctypes
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path

import torch

from core import distributed
from core.command import UserError

# SIGUSR1 is what a scheduler can be told to send some time before it ends a job.
_STOPS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGUSR1] if sys.platform != "win32" else [])
REPOSITORY = Path(__file__).resolve().parent.parent
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt


def select_device(name: str) -> torch.device:
    """'auto' is the first GPU if there is one, else the CPU.

    Raises UserError if a GPU is asked for and PyTorch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device: {name} asked for, but PyTorch sees {torch.cuda.device_count()} GPUs. "
            "Use --device cpu, or install a CUDA build of PyTorch."
        )
    return device


def device_name(device: torch.device) -> str:
    """As 'cpu', or 'cuda: NVIDIA H200'."""
    return f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def require_compiler(device: torch.device) -> None:
    """Compile something small.

    Raises UserError where `compile` cannot work: on a CPU for want of a C++ compiler, on a GPU of Triton or its.
    """
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except RuntimeError as error:
        first, _, rest = str(error).strip().partition("\n")  # PyTorch 2.6 says what raised, and then what
        reason = f"{first} {rest.strip().partition(chr(10))[0]}" if first.endswith("raised:") else first
        remedy = "Install what is missing, or set it to false."
        raise UserError("compile", f"PyTorch cannot compile for {device} here ({reason})", remedy=remedy) from error


def tune_cpu(num_threads: int) -> None:
    """Set the threads of PyTorch's CPU operations, 0 leaves PyTorch's choice; keep freed memory for the next step.

    The latter with glibc only, which by default hands every large block back to the system: getting it anew takes a
    fifth of a step's time (benchmarks/speed.md).
    """
    if num_threads:
        torch.set_num_threads(num_threads)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in ((M_MMAP_THRESHOLD, 2**30), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26)):
            libc.mallopt(parameter, value)


def require_deterministic(redirector: str, device: torch.device) -> None:
    """Before data and estimators are made. Raises UserError where PyTorch has no deterministic way for a training."""
    if device.type == "cuda" and redirector in ("st-ed-flow", "redirtrans-gan"):
        found = f"true, and on a GPU the gradient of looking images up, which {redirector} needs, has no such way"
        raise UserError("deterministic", found, remedy="Use --no-deterministic or --device cpu.")


def be_deterministic() -> None:
    """The same numbers each time on this machine, or PyTorch's RuntimeError where an operation has no such way.

    On a CPU it is so without asking, but for memory that is read before it is written, which is filled now.
    Source: PyTorch's notes on reproducibility.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.backends.cudnn.benchmark = False  # which would choose by a measurement of time
    torch.use_deterministic_algorithms(True)


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """Random numbers of one step as a function of (seed, stream, step), so that a resumed run draws the same.

    Drawn on the CPU whatever the device, so that the device does not change them either.
    """
    mixed = (seed * 1_000_003 + stream) * 1_000_000_007 + step
    return torch.Generator().manual_seed(mixed % 2**63)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """bfloat16 where the configuration asks for it; float32 otherwise."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether the processor has no instructions for bfloat16, which then takes longer than float32, not less.

    Of a CPU it is what PyTorch's convolutions go by, AVX-512 on x86, and False where they go by nothing.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return not torch.cuda.is_bf16_supported(including_emulation=False)
    has_them = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    return not has_them()


def warning_of_emulation(device: torch.device, precision: str) -> Iterator[str]:
    """A sentence where a training will take several times as long in its precision as in float32."""
    if precision == "bfloat16" and emulates_bfloat16(device):
        yield (
            f"precision is bfloat16, and {device.type} here has no instructions for it: "
            "steps take several times as long as in float32 (--precision float32)."
        )


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """A list that receives the signal when the user, or a scheduler, asks to stop; a second request stops at once."""
    received: list[int] = []

    def remember(number: int, _frame: object) -> None:
        if received and distributed.size() == 1:  # torchrun passes on what the processes got already
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, remember) for number in _STOPS}
    except ValueError:  # not the main thread (a notebook's worker): signals stay as they are
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def code_revision() -> str:
    """Git revision of this code, with '+changes' if files differ from it; 'unknown' outside a checkout."""
    try:
        top = Path(_git("rev-parse", "--show-toplevel")).resolve()
        if top != REPOSITORY:  # our files lie in somebody else's repository
            return "unknown"
        return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, check=True)
    return os.fsdecode(done.stdout).strip()  # a path may have bytes that the locale has no letters for


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a result."""
    names = ("torch", "torchvision", "numpy", "h5py", "opencv-python-headless", "pydantic", "lpips", "tensorboard")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
