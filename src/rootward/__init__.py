"""Rootward: an organisation's internal PKI in one package (see docs/architecture.md)."""

__version__ = "0.1.0"
