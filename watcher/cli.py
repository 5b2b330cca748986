"""The command line: where it begins and ends. The commands are in `watcher.commands`: they alone print.

Each of these is imported when its command is called: the watcher stays small, and `dropscale once` quick.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

import click

from watcher import __version__
from watcher.commands.options import complain
from watcher.errors import EXIT_DONE, AlreadyRunning, DropscaleError, EnvironmentFault
from watcher.files.names import display

_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells do

_COMMANDS = {
    "init": "folders.init",
    "run": "watch.run",
    "once": "watch.once",
    "status": "folders.status",
    "retry": "folders.retry",
    "upscale": "upscale.upscale",
    "doctor": "folders.doctor",
    "models": "models.group",
    "health": "health.health",
    "report": "report.report",
    "warm": "warm.warm",
    "web": "web.web",
    "worker": "worker.worker",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    _open_streams()
    try:
        code = commands.main(args=arguments, prog_name="dropscale", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _EXIT_INTERRUPTED
    except AlreadyRunning as error:
        click.echo(f"dropscale: {error.message}")
        code = error.exit_code
    except DropscaleError as error:
        complain(error.message, error.remedy)
        code = error.exit_code
    except BrokenPipeError:
        # `dropscale status | head`: nothing more to say, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_DONE
    except OSError as error:
        at = display(str(error.filename or ""))
        complain(f"{error.strerror or error}: {at}", "see that this user can read and write there")
        code = EnvironmentFault.exit_code
    sys.exit(code or EXIT_DONE)


def _open_streams() -> None:
    """Make both streams fit for whatever is written: they may be closed, and names are bytes."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # `dropscale once >&-`; the number may belong to another file by now
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - to the end of the process
            with contextlib.suppress(OSError):
                os.fstat(descriptor)
                continue
            os.dup2(getattr(sys, name).fileno(), descriptor)
        with contextlib.suppress(AttributeError):
            getattr(sys, name).reconfigure(errors="backslashreplace")


class _Commands(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib  # noqa: PLC0415 - for mistakes only

            close = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(".")
        command: click.Command = getattr(importlib.import_module(f"watcher.commands.{module}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dropscale")
def commands() -> None:
    """Drop a picture into a folder, get it back three times larger; the engine runs only while there is work.

    Exit codes: 0 done, 1 some pictures failed, 2 usage or config, 3 environment (share gone, disk full, no model).
    """
