"""The doors: each parses what its protocol says to an ask and a principal, and renders what comes back. No policy here.

`PROTOCOLS` are those through which something is asked for; each has a column in the problem table (`problems.STATUS`).
Status services (`pki`) and operations (`ops`) are beside them.
"""

PROTOCOLS = ("rest", "acme")
