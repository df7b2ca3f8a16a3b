"""`rootward acme`: what the administrator of ACME clients needs."""

from __future__ import annotations

from rootward.cli.options import noun
from rootward.cli.snippet import snippet

app = noun("Serve other people's ACME clients.")
app.command("snippet")(snippet)


@app.callback()
def _several() -> None:
    """Keeps a noun of one verb from being that verb."""
