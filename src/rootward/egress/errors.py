"""What goes wrong on the way out, in words that can be told to whoever chose the target.

A sentence never holds an address, a port, or anything that was fetched (RFC 8555 10.4): it would turn a validation into
a scanner of our network. The operator finds the address in the log line `egress.refused`.
"""

from __future__ import annotations

from typing import Literal

# Words of RFC 8555 6.7, as far as a network can cause them.
Kind = Literal["dns", "connection", "tls", "incorrectResponse"]


class EgressError(Exception):
    """Nothing came back that can be used. `again`: whether the same try later can end otherwise."""

    def __init__(self, kind: Kind, sentence: str, *, again: bool = True) -> None:
        self.kind: Kind = kind
        self.sentence = sentence
        self.again = again
        super().__init__(f"{kind}: {sentence}")


NOT_ALLOWED = "The target is not one that this server may call."


def refused(sentence: str = NOT_ALLOWED) -> EgressError:
    """A target that will be refused the next time too."""
    return EgressError("connection", sentence, again=False)
