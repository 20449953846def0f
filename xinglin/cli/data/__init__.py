"""`xinglin data VERB`: one file for each group of verbs, listed here in the order of the road.

Heavy imports stand inside the verbs, so that --help answers at once.
"""

from __future__ import annotations

import typer

from xinglin.cli.data import sources

app = typer.Typer(help="Look at data files and turn them into records.", no_args_is_help=True)
app.command("inspect", epilog=sources.INSPECT_EXAMPLES)(sources.inspect_command)
app.command("import", epilog=sources.IMPORT_EXAMPLES)(sources.import_command)
