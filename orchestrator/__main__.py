"""The command line's entry, and the one place where an error becomes a printed message."""

import sys
from typing import TYPE_CHECKING

from orchestrator.contract.command_line import PROGRAM

if TYPE_CHECKING:
    from orchestrator.errors import OrchestratorError

_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit code."""
    import click

    from orchestrator.cli import cli

    try:
        outcome = cli.main(prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return _EXIT_USAGE
    except click.ClickException as error:
        return _report(_usage_error(error))
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return _EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001  (a bug is raised again by _foreseen)
        return _report(_foreseen(error))
    return outcome if isinstance(outcome, int) else 0


def _usage_error(error: "Exception") -> "OrchestratorError":
    from click import UsageError

    from orchestrator.errors import SpecError

    context = error.ctx if isinstance(error, UsageError) else None
    command = context.command_path if context else PROGRAM
    message = getattr(error, "format_message", error.__str__)()
    return SpecError(message, next_step=f"{command} --help")


def _foreseen(error: Exception) -> "OrchestratorError":
    """Return the error as one of ours; an error of the disk becomes one, a bug goes on up."""
    from orchestrator.errors import MachineError, OrchestratorError

    if isinstance(error, OrchestratorError):
        return error
    if isinstance(error, OSError):
        return MachineError(f"The machine refused: {error}.", next_step="check the folder's space and permissions")
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
