"""The only way out to addresses that others choose (ACME validation, discovery, webhooks).

A name is looked up once, every answer is judged by `Rules`, the very address that was judged is dialled, and the peer
is compared with it. All of it is bounded in bytes and time, and nothing that was fetched, no address and no port gets
into an error (RFC 8555 10.4). `docs/reference/egress.md` says what is allowed.
"""

from __future__ import annotations

from rootward.egress.client import Egress as Egress
from rootward.egress.client import Peer as Peer
from rootward.egress.errors import EgressError as EgressError
from rootward.egress.errors import Kind as Kind
from rootward.egress.http import Answer as Answer
from rootward.egress.http import Url as Url
from rootward.egress.limits import Limits as Limits
from rootward.egress.rules import Rules as Rules
from rootward.egress.rules import make_rules as make_rules
