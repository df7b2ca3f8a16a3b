"""The profiles of the certificates that an installation needs for itself: OCSP responders and its own TLS.

They stand here, not in a store, under names that no door can spell and no stored profile can have; so nobody can enrol
for OCSP signing (I-32). Whoever decides about one anew (the signer process) builds it from the same code.
"""

from __future__ import annotations

from typing import Final

from rootward.core.names import guess_name
from rootward.core.profile import OCSP_SIGNING, Lifetime, NameRules, Profile, Revocation, Subject, Value
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.signature import RsaSignature

RESPONDER: Final = "ocsp-responder"
TLS: Final = "rootward-tls"
VERSION: Final = 0  # of every one of them: stored profiles begin with 1


def responder_profile(authority: str, lifetime: str, rsa_signature: RsaSignature = "pkcs1") -> Profile:
    """A delegated responder of this authority: nothing but OCSP signing, nocheck, no pointers (RFC 6960 4.2.2.2)."""
    return Profile(
        name=RESPONDER,
        authority=authority,
        names=NameRules(minimum=0),
        keys=(KeyAlgorithm.P256,),
        extended_key_usage=(OCSP_SIGNING,),
        lifetime=Lifetime(default=lifetime, maximum=lifetime),
        subject=Subject(common_name=Value("fixed", f"OCSP responder of {authority}")),
        revocation=Revocation(crl=False, ocsp=False, issuer=False),
        rsa_signature=rsa_signature,
    )


def tls_profile(authority: str, hosts: tuple[str, ...], rsa_signature: RsaSignature = "pkcs1") -> Profile:
    """The server's own certificate: the names of its configuration, and no others."""
    return Profile(
        name=TLS,
        authority=authority,
        names=NameRules(source="fixed", fixed=tuple(str(guess_name(host)) for host in hosts)),
        keys=(KeyAlgorithm.P256,),
        extended_key_usage=("server_auth",),
        lifetime=Lifetime(default="30d", maximum="30d"),
        subject=Subject(common_name=Value("none")),
        rsa_signature=rsa_signature,
    )
