"""Backups: an installation as one sealed file, made while it runs, checked without it, put back elsewhere.

`form` is the file, `create`, `verify` and `restore` what is done with it. The file is the same for both stores.
"""
