"""Entry point of the command line, and the only module that prints an error."""

import os
import sys
from typing import TYPE_CHECKING

from orchestrator.contract.command_line import PROGRAM

if TYPE_CHECKING:
    from click import ClickException

    from orchestrator.errors import OrchestratorError

_EXIT_UNTOLD = 1
"""Of an error that could not be printed."""
_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit code."""
    from orchestrator.cli.streams import drop_unwritten, open_streams

    open_streams()
    try:
        return _run()
    except OSError:  # stderr failed too
        return _EXIT_UNTOLD
    finally:
        drop_unwritten()


def _run() -> int:
    import click

    from orchestrator.cli import cli
    from orchestrator.cli.completion import COMPLETE_VARIABLE
    from orchestrator.cli.program import SCRIPT, program

    name = program()
    if COMPLETE_VARIABLE in os.environ:  # the shell asks, for the script that `completion` registered
        name = SCRIPT

    try:
        outcome = cli.main(prog_name=name, complete_var=COMPLETE_VARIABLE, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return _EXIT_USAGE
    except click.ClickException as error:
        return _report(_usage_error(error))
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return _EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001  (_expected raises a bug again)
        return _report(_expected(error))
    return outcome if isinstance(outcome, int) else 0


def _usage_error(error: "ClickException") -> "OrchestratorError":
    """Return a mistake in the command line as one of our errors."""
    from click import UsageError

    from orchestrator.cli.program import program
    from orchestrator.errors import SpecError

    typed = PROGRAM
    if isinstance(error, UsageError) and error.ctx is not None:
        typed += error.ctx.command_path.removeprefix(program())
    message = error.format_message().replace("\n\t", " ")  # click lists choices one a line
    return SpecError(message, next_step=f"{typed} --help")


def _expected(error: Exception) -> "OrchestratorError":
    """Return an error as one of ours, an OSError as MachineError; any other is a bug and is raised again."""
    from orchestrator.errors import MachineError, OrchestratorError

    if isinstance(error, OrchestratorError):
        return error
    if isinstance(error, OSError):
        message = f"The operating system reported an error: {error}."
        return MachineError(message, next_step="check the folder's space and permissions")
    raise error


def _report(error: "OrchestratorError") -> int:
    from orchestrator.cli.output import print_error

    try:
        print_error(error, as_json="--json" in sys.argv)
    except OSError:  # stdout is what failed
        print_error(error, as_json=False)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
