"""The command: verbs, flags, progress and exit codes over the functions of `culturepark.api`.

Exit codes: 0 done, 1 failed, 2 bad input, 3 stopped by budget, 130 interrupted (go on with
--resume).
"""

from __future__ import annotations

import os
import sys

import click

from culturepark.cli.commands import cli
from culturepark.cli.output import is_empty, json_text, occupy_input, protect_outputs, unwritten
from culturepark.cli.terminal import echo

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command; the only place where errors become exit codes."""
    occupy_input()
    protect_outputs()
    code = _run()
    if (failure := unwritten()) is not None:
        echo(
            f"culturepark: standard output cannot be written: {failure.strerror}. The work itself"
            " is done and kept",
            err=True,
        )
        code = code or 1
    sys.exit(code)


def _run() -> int:
    try:
        cli.main(prog_name="culturepark", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return _report_error(error, error.format_message(), 2)
    except (KeyboardInterrupt, click.exceptions.Abort):
        echo("interrupted; nothing is lost: the same command, or --resume, goes on", err=True)
        sys.stdout.flush()
        os._exit(130)  # everything is closed; the interpreter's own end would take as long again
    except (OSError, MemoryError) as error:
        return _report_error(error, _plainly(error), 1, say=True)
    except Exception as error:
        from culturepark.errors import ParkError

        if isinstance(error, RuntimeError) and "home directory" in str(
            error
        ):  # of `~` and `~name` in a path
            error = ParkError(f"{error} Write paths without ~, or set HOME")
        if not isinstance(error, ParkError):
            raise
        return _report_error(error, str(error), error.exit_code, say=True)
    return 0


def _plainly(error: Exception) -> str:
    if isinstance(error, OSError):
        return ": ".join(
            str(part) for part in (error.filename, error.strerror or error) if part is not None
        )
    return "out of memory"


def _report_error(error: Exception, text: str, code: int, *, say: bool = False) -> int:
    """Tell of an error: in words on standard error and, under --json, as the one document on
    standard output.
    """
    if say:
        echo(f"culturepark: {text}", err=True)
    if "--json" in sys.argv[1:] and is_empty():
        problems = list(getattr(error, "problems", ()))
        told = {"error": text, "kind": type(error).__name__, "code": code} | (
            {"problems": problems} if problems else {}
        )
        click.echo(json_text(told))
    return code
