"""The only place where a key is used, and what it may be used for: drafts that passed their lints (I-38).

A signature leaves this module only when the issuer's public key, taken from its certificate and not from the backend,
verifies it over the very bytes that were linted and stored (I-02, I-13).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from rootward.core.crl import CrlDraft
from rootward.core.csr_draft import CsrDraft
from rootward.core.grounds import Grounds
from rootward.core.ledger import HeadDraft
from rootward.core.ocsp import OcspDraft
from rootward.core.plan import Draft
from rootward.core.pubkey import PublicKey
from rootward.core.signature import verifies
from rootward.keys import Key, sign_tbs

_ISSUING: Final = ThreadPoolExecutor(16, thread_name_prefix="sign")
_STATUS: Final = ThreadPoolExecutor(4, thread_name_prefix="sign-status")

Signable = Draft | CrlDraft | OcspDraft | CsrDraft | HeadDraft


class WrongSignature(Exception):
    """The backend signed with another key, or signed wrongly. Nothing of it is released; the issuer is frozen."""


def sign(key: Key, public: PublicKey, draft: Signable, grounds: Grounds | None = None) -> bytes:
    """The signature over `draft.tbs` by `key`, verified with `public`, which is the issuer's as its certificate says.

    `grounds` are what a certificate's draft was made of: a key in a signer process signs none without.

    Raises keys.NotSigned (and its Refused) and keys.SignatureUnknown as the backend does, and WrongSignature.
    """
    if draft.issuer_key_id != public.id:
        raise WrongSignature("the draft names another issuer than the one that is to sign it")
    # What the bytes name is how they are signed; a log's head names nothing and is signed in the key's usual way.
    algorithm = None if isinstance(draft, HeadDraft) else draft.algorithm
    signature = sign_tbs(key, draft.tbs, algorithm, grounds)
    if not verifies(public, signature, draft.tbs, algorithm=algorithm):
        raise WrongSignature(f"the key {key.label} gave a signature that the issuer's public key does not verify")
    return signature


async def sign_soon(key: Key, public: PublicKey, draft: Signable, grounds: Grounds | None = None) -> bytes:
    """As `sign`, for the event loop: a key that is slow signs in a thread. CRLs and OCSP answers have threads of their
    own, so that they never wait behind certificates (I-25).
    """
    if key.slow:
        pool = _STATUS if isinstance(draft, OcspDraft | CrlDraft) else _ISSUING
        return await asyncio.get_running_loop().run_in_executor(pool, sign, key, public, draft, grounds)
    return sign(key, public, draft, grounds)
