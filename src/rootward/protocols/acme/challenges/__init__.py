"""How somebody proves that a name is theirs: one file for each type, and this list of them.

A validation is one look from one perspective (`Ways`); whoever wants several looks several times. What is wrong is a
`Failed` whose words may be told to anybody: they hold no address and nothing that was fetched.
"""

from __future__ import annotations

from rootward.protocols.acme.challenges import dns01, http01, tlsalpn01
from rootward.protocols.acme.challenges.task import ChallengeType as ChallengeType
from rootward.protocols.acme.challenges.task import Failed as Failed
from rootward.protocols.acme.challenges.task import Task as Task
from rootward.protocols.acme.challenges.task import Ways as Ways

CHALLENGES: dict[str, ChallengeType] = {
    "http-01": http01.Http01(),
    "dns-01": dns01.Dns01(),
    "tls-alpn-01": tlsalpn01.TlsAlpn01(),
}
