"""The command: verbs, flags, progress and exit codes over the functions of `culturepark.verbs`.

Exit codes: 0 done, 1 failed, 2 bad input, 3 stopped by budget, 130 interrupted (go on with --resume).
"""

from __future__ import annotations

import os
import sys

import click

from culturepark.cli.commands import cli
from culturepark.cli.terminal import echo

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command; the only place where errors become exit codes."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.exceptions.Abort):
        echo("interrupted; nothing is lost: the same command, or --resume, goes on", err=True)
        sys.stdout.flush()
        os._exit(130)  # everything is closed; the interpreter's own end would take as long again
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        from culturepark.errors import ParkError

        if not isinstance(error, ParkError):
            raise
        echo(f"culturepark: {error}", err=True)
        sys.exit(error.exit_code)
