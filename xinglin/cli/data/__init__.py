"""`xinglin data VERB`: one file for each group of verbs, listed here in the order of the road.

Heavy imports stand inside the verbs, so that --help answers at once.
"""

from __future__ import annotations

import typer

from xinglin.cli.data import clean, dedup, deidentify, instruct, mix, notes, sources

app = typer.Typer(help="Look at data files and turn them into records.", no_args_is_help=True)
app.command("inspect", epilog=sources.INSPECT_EXAMPLES)(sources.inspect_command)
app.command("import", epilog=sources.IMPORT_EXAMPLES)(sources.import_command)
app.command("notes", epilog=notes.NOTES_EXAMPLES)(notes.notes_command)
app.command("deidentify", epilog=deidentify.DEIDENTIFY_EXAMPLES)(deidentify.deidentify_command)
app.command("clean", epilog=clean.CLEAN_EXAMPLES)(clean.clean_command)
app.command("instruct", epilog=instruct.INSTRUCT_EXAMPLES)(instruct.instruct_command)
app.command("dedup", epilog=dedup.DEDUP_EXAMPLES)(dedup.dedup_command)
app.command("overlap", cls=dedup.ManyTests, epilog=dedup.OVERLAP_EXAMPLES)(dedup.overlap_command)
app.command("mix", epilog=mix.MIX_EXAMPLES)(mix.mix_command)
