"""The kill loop: whole servers, clients that never give up, kills at every failpoint and at random moments, and a
record of all that was signed and seen, from which `tests/faults/oracle.py` judges.

`record` is what is kept, `server` the process that is killed (in a `slot`), `clients` who ask (over a `wire`), `drive`
who kills, `evidence` what the judge reads, `calls` every call of the store.
"""
