"""The command. Sub-commands register as entry points and import what they need when they run."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import click

from engine import __version__
from engine.errors import StacksegError, printable
from engine.streams import keep_streams

GROUP = "stackseg.commands"
ORDER = (
    "demo", "segment", "plan", "merge", "verify", "inspect", "evaluate", "relabel", "render",
    "convert", "train", "export",
)  # fmt: skip
INTERRUPTED = 130
LOST = 2


class _EntryPointGroup(click.Group):
    """A group whose commands are the entry points under `stackseg.commands`."""

    def list_commands(self, context: click.Context) -> list[str]:
        found = {point.name for point in entry_points(group=GROUP)}
        return [n for n in ORDER if n in found] + sorted(found - set(ORDER))

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        found: list[EntryPoint] = list(entry_points(group=GROUP, name=name))
        # Only modules of options are loaded here: an ImportError in one is a fault, and is shown.
        command: click.Command | None = found[0].load() if found else None
        return command


@click.command(cls=_EntryPointGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stackseg")
def stackseg() -> None:
    """Segment large microscopy stacks with exported U-Nets."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("stackseg").setLevel(logging.INFO)


def main() -> None:
    """Run the command; every expected error ends in one sentence and its exit status."""
    out = keep_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until a job takes both over
    try:
        status = stackseg.main(standalone_mode=False)
    except click.ClickException as error:
        command = (
            error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        )
        hint = f" (see {command} --help)" if command else ""
        click.echo(f"stackseg: {error.format_message().rstrip('.')}{hint}", err=True)
        status = error.exit_code
    except click.exceptions.Exit as error:
        status = error.exit_code
    except StacksegError as error:
        click.echo(f"stackseg: {error}", err=True)
        status = error.exit_status
    except (KeyboardInterrupt, click.Abort):
        click.echo("stackseg: interrupted", err=True)
        status = INTERRUPTED
    except UnicodeEncodeError as error:  # a library that takes no other paths, nor writes them
        shown = printable(error.object)
        click.echo(f"stackseg: {shown}: is not UTF-8; rename it, or link to it", err=True)
        status = 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"stackseg: {where}{error.strerror or error}", err=True)
        status = 2
    status = status if isinstance(status, int) else 0
    out.flush()
    if out.lost is not None:
        why = out.lost.strerror or out.lost
        click.echo(f"stackseg: what is printed on stdout is not all written ({why})", err=True)
        status = status or LOST
    _end(status)


def _end(status: int) -> NoReturn:
    """End this process, also where threads hang in reads that cannot be interrupted."""
    hangs = sys.modules.get("engine.steps.hangs")
    if hangs is not None and hangs.left_behind():
        # Whatever waits for threads at the end of Python, as zarr's pool does, would never end.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)
