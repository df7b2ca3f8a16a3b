"""`rootward signer`: a process of its own user that holds the issuing authorities' keys, and trusts nobody.

Whoever owns the web process can write every row of the database. So this one reads none of them: it is told on what
grounds a signature is asked (`core/grounds.py`), decides by what its own administrator pinned (`core/pinned.py`), and
writes down what it signs before it does (`signer/journal.py`). It imports `ca/sign.py` and nothing else of `ca`.
"""
