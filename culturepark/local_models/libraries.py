"""Keeps the libraries that load and write models quiet, and turns what they raise into our
errors.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from culturepark.errors import ModelError, ParkError, WriteError

UNWRITABLE = re.compile(
    r"No space left|File too large|quota exceeded|Read-only file system|PytorchStreamWriter|file"
    r" write failed",
    re.I,
)
# For bases that bring no chat template. Newlines as expressions: a template's own are trimmed.
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + '\\n' + message['content'] +"
    " eos_token + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' + '\\n' }}{%"
    " endif %}"
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' progress and notes off the screen, and let them fetch nothing that was
    not asked for.
    """
    import datasets
    import transformers

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    levels = {
        name: logging.getLogger(name).level for name in ("trl", "accelerate", "peft", "torch")
    }
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn what the libraries raise where weights cannot be written (safetensors and torch each
    their own) into a WriteError.
    """
    try:
        yield
    except ParkError:
        raise
    except Exception as error:
        if not UNWRITABLE.search(str(error)):
            raise
        raise WriteError(
            f"cannot write {what}: {error}. Free disk space, then go on: the same command"
        ) from error


@contextmanager
def explain_damage(what: str) -> Iterator[None]:
    """Raise whatever a library says of a model's files, cut or changed in any way, as one
    ModelError that begins with `what`.
    """
    try:
        yield
    except (ParkError, MemoryError):
        raise
    except Exception as error:
        message = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        raise ModelError(f"{what}: {kind}{message[:300]}") from error
