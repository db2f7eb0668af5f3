"""Help of a command with many options: in named groups, those that most people need first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import click

OTHERS = "Other options"
Groups = Mapping[str, Sequence[str]]  # names of options by their group: "min_area" for --min-area


class GroupedCommand(click.Command):
    """A command whose help shows its options in `groups`, and those of none as the last."""

    groups: ClassVar[Groups] = {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See `click.Command`."""
        records = {}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and (record := option.get_help_record(ctx)):
                records[option.opts[-1].strip("-").replace("-", "_")] = record
        for title, names in self.groups.items():
            if shown := [records.pop(name) for name in names if name in records]:
                with formatter.section(title):
                    formatter.write_dl(shown)
        if records:
            with formatter.section(OTHERS):
                formatter.write_dl(list(records.values()))


def grouped(groups: Groups) -> type[GroupedCommand]:
    """The class of a command with these groups, for `click.command(cls=...)`."""
    return type("Grouped", (GroupedCommand,), {"groups": groups})
