"""Says what this machine can run models on, and chooses device, number format and attention by
it.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from culturepark.errors import InputError, ParkError, RunFailed, nearest

T = TypeVar("T")

DEVICES = ("cuda", "mps", "cpu")
DTYPES = ("bfloat16", "float16", "float32")
NEEDED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "psutil")
ATTENTION = ("flash_attention_2", "sdpa", "eager")
GIB = 2**30
PATIENCE = 10  # seconds in which a launcher that lost its first process ends the others


@dataclass(frozen=True)
class Machine:
    """What a model is run on. `memory` is the device's free memory in bytes, `count` how many
    devices processes share.
    """

    device: str
    title: str
    dtype: str
    attention: str
    memory: int
    count: int = 1

    def __str__(self) -> str:
        many = f", {self.count} processes" if self.count > 1 else ""
        return (
            f"{self.title} ({self.device}{many}), {self.dtype}, {self.attention},"
            f" {self.memory / GIB:.1f} GiB free"
        )


def require_libraries() -> None:
    """Raise InputError where the libraries that run and tune models are not installed."""
    if lacking := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(
            f"models on this machine need {', '.join(lacking)}: pip install 'culturepark[tune]'"
        )


def find_machine(
    device: str | None = None, dtype: str | None = None, attention: str | None = None
) -> Machine:
    """Return what is there, or what was asked for; InputError where that cannot be.

    On CUDA cards from Ampere on (compute capability 8.0) the format is bfloat16, on older ones and
    on Apple's float16, on a CPU float32. FlashAttention 2 is taken where it is installed and the
    card can run it, else PyTorch's own kernels (sdpa).
    """
    require_libraries()
    import torch

    for flag, value, known in (
        ("device", device, DEVICES),
        ("dtype", dtype, DTYPES),
        ("attention", attention, ATTENTION),
    ):
        if value is not None and value not in known:
            raise InputError(f"--{flag} {value!r}: {nearest(value, known)}")
    available = {
        "cuda": torch.cuda.is_available() and not _avoids_cards(),
        "mps": torch.backends.mps.is_available() and count_processes() == 1,
        "cpu": True,
    }
    device = device or next(name for name in DEVICES if available[name])
    if not available[device]:
        raise InputError(
            f"--device {device}: there is none here."
            f" {nearest(device, [d for d in DEVICES if available[d]])}"
        )
    modern = device == "cuda" and torch.cuda.get_device_capability()[0] >= 8
    dtype = (
        dtype
        or {"cuda": "bfloat16" if modern else "float16", "mps": "float16", "cpu": "float32"}[device]
    )
    if attention == "flash_attention_2" and device != "cuda":
        raise InputError(
            f"--attention flash_attention_2 runs on CUDA cards, not on {device}; take sdpa"
        )
    flash = modern and dtype != "float32" and importlib.util.find_spec("flash_attn") is not None
    attention = attention or ("flash_attention_2" if flash else "sdpa")
    join_processes(device)
    return Machine(
        device,
        _name_device(device),
        dtype,
        attention,
        _measure_least_free(device),
        count_processes(),
    )


def choose_batch_size(
    machine: Machine, parameters: int, length: int, trained: int, bits: float = 16
) -> int:
    """Return how many rows of `length` tokens a device takes at once, a power of two from 1 to 64.

    A cautious reckoning: the weights at `bits` each, 16 bytes a trained parameter (gradient, two
    moments, a copy), and for each token the activations that checkpointing keeps, about 2% of the
    square root of the parameters in KiB. On a CPU, where memory is not what bounds it, 16.
    """
    if machine.device == "cpu":
        return 16
    left = machine.memory * 0.85 - parameters * bits / 8 - trained * 16
    row = length * parameters**0.5 * 0.02 * 1024
    rows = max(1, min(64, int(left / row)))
    return 1 << (rows.bit_length() - 1)


def _name_device(device: str) -> str:
    import platform

    import torch

    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return "Apple GPU" if device == "mps" else f"CPU, {os.cpu_count()} cores, {platform.machine()}"


def _measure_free(device: str) -> int:
    import psutil
    import torch

    return (
        int(torch.cuda.mem_get_info()[0])
        if device == "cuda"
        else int(psutil.virtual_memory().available)
    )


# ------------------------------------------------------- several processes


def count_processes() -> int:
    """Return how many processes work together: under accelerate or torchrun there are several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Say whether this is the process that decides, writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def is_sharded() -> bool:
    """Say whether the launch asked for FSDP or DeepSpeed: then no process holds a whole model."""
    return any(
        os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true"
        for name in ("FSDP", "DEEPSPEED")
    )


def join_processes(device: str | None = None) -> None:
    """Meet the other processes of a launch, each on its own device; nothing where this is the only
    one, or they have met.

    It comes before anything touches a card (else all would reserve memory on the first) and before
    a base is loaded (only then can FSDP have one process read it for all). Whoever waits, waits for
    long: the first may be building or exporting.
    """
    require_libraries()
    import torch

    if count_processes() == 1 or torch.distributed.is_initialized():
        return
    from datetime import timedelta

    from accelerate import PartialState

    PartialState(
        cpu=device == "cpu" or _avoids_cards() or not torch.cuda.is_available(),
        timeout=timedelta(hours=4),
    )


def run_in_first(work: Callable[[], T]) -> T:
    """Do something in the first process alone and return in all of them what came of it; where it
    fails, all stop.

    What comes of it is pickled on its way. RunFailed in the others says why the first stopped.
    """
    if count_processes() == 1:
        return work()
    import torch

    shared: list[Any] = [None, None]
    failure: Exception | None = None
    if is_first():
        try:
            shared[0] = work()
        except Exception as error:
            failure, shared[1] = error, str(error) or type(error).__name__
    torch.distributed.broadcast_object_list(shared)
    if failure is not None:
        raise failure
    if shared[1] is not None:
        raise RunFailed(f"the first process stopped: {shared[1]}")
    return shared[0]  # type: ignore[no-any-return]


@contextmanager
def enter_launch(device: str | None = None) -> Iterator[None]:
    """Work as one of the processes of a launch; what stops them all is told by the first, and the
    launcher ends the others.

    Only after work that went well is there an orderly leave: it would wait for whoever failed.
    """
    atexit.unregister(_leave_processes)
    try:
        join_processes(device)
        yield
    except ParkError:
        if not is_first():
            time.sleep(PATIENCE)
        raise
    atexit.register(_leave_processes)


def _leave_processes() -> None:
    """Part from the others.

    A thread of gloo's may still be letting go of the last message, and needs the interpreter's lock
    for it; asking for that when the interpreter is on its way out would abort the process. So it
    gets its turn now.
    """
    import torch

    if torch.distributed.is_initialized():
        time.sleep(0.2)
        torch.distributed.destroy_process_group()


def _avoids_cards() -> bool:
    """Say whether the launch keeps off this machine's cards (`accelerate launch --cpu`)."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"


def _measure_least_free(device: str) -> int:
    """Return the free memory of the device that has least, so that all processes choose alike."""
    import torch

    free = [_measure_free(device)] * count_processes()
    if count_processes() > 1:
        torch.distributed.all_gather_object(free, free[0])
    return min(free)
