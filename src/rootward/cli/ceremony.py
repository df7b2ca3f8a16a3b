"""`rootward ceremony`: what is done offline."""

from __future__ import annotations

from rootward.cli import shares
from rootward.cli.options import noun

app = noun("Hold ceremonies, offline.")
app.add_typer(shares.app, name="share")
