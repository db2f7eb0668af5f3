"""The command: its sub-commands are entry points, which import what they need when they run."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import click

from engine import __version__
from engine.errors import INTERRUPTED, StacksegError, printable
from engine.streams import keep_streams

GROUP = "stackseg.commands"
ORDER = (
    "demo", "segment", "plan", "tune", "merge", "verify", "inspect", "evaluate", "relabel",
    "render", "crop", "convert", "train", "export",
)  # fmt: skip
NEAR = 0.8  # of difflib: a name of which a letter or two are wrong is offered in its place
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See `click.Group`; a mistyped name is answered with those that it may stand for."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:  # click before 8.4 has no class for an unknown command
            if near := _near(args[0], self.list_commands(ctx)):
                names = " or ".join(map(repr, near))
                ctx.fail(f"No such command {args[0]!r}. Did you mean {names}?")
            raise


@click.command(cls=_EntryPointGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stackseg")
def stackseg() -> None:
    """Segment large microscopy stacks with exported U-Nets.

    \b
    To begin:
      stackseg demo                                           synthetic nuclei
      stackseg segment STACK.tif --model nuclei --output DIR  a stack of your own
      stackseg COMMAND --help                                 options of a command
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("stackseg").setLevel(logging.INFO)


def main() -> None:
    """Run the command; every expected error ends in one sentence and its exit status."""
    out = keep_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until a job takes both over
    status, sentence = _run()
    if sentence:
        click.echo(f"stackseg: {sentence}", err=True)
    out.flush()
    if out.lost is not None:
        why = out.lost.strerror or out.lost
        click.echo(f"stackseg: not all output could be written to stdout ({why})", err=True)
        status = status or LOST
    _end(status)


def _run() -> tuple[int, str]:
    """Run the command; its exit status, and a sentence where it failed."""
    try:
        status = stackseg.main(standalone_mode=False)
        return (status if isinstance(status, int) else 0), ""
    except click.exceptions.Exit as error:
        return error.exit_code, ""
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and error.possibilities:
            near = _near(error.option_name, error.possibilities)
            error = click.NoSuchOption(error.option_name, possibilities=near, ctx=error.ctx)
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.2
            click.echo(error.format_message(), err=True)
            return error.exit_code, ""
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f" (see {context.command_path} --help)" if context else ""
        return error.exit_code, error.format_message().rstrip(".") + hint
    except StacksegError as error:
        return error.exit_status, str(error)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED, "interrupted"
    except UnicodeEncodeError as error:  # a library that neither takes nor writes other paths
        return 2, f"{printable(error.object)}: is not UTF-8; rename it, or link to it"
    except OSError as error:
        return 2, f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"


def _near(name: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that begin with a mistyped name, or else resemble it."""
    from difflib import get_close_matches

    names = list(names)
    longer = [n for n in names if name and n.startswith(name)]
    return longer or get_close_matches(name, names, cutoff=NEAR)


def _end(status: int) -> NoReturn:
    """End this process, also where threads hang in reads that cannot be interrupted."""
    hangs = sys.modules.get("engine.steps.hangs")
    if hangs is not None and hangs.left_behind():
        # Whatever waits for threads at the end of Python, as zarr's pool does, would never end.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    gc.freeze()  # or Python looks for cycles in all that it is about to let go of: 0.15 s
    sys.exit(status)
