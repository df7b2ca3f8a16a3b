"""Ports for servers that are stopped and started again at the same address.

The kernel gives any port of its own range away meanwhile: to whoever asks for port 0, and to every connection that goes
out. So these are outside that range; and each is given once while its taker lives, to tests that run side by side too.
"""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST, HIGHEST = 10_000, 65_535
_taken: list[socket.socket] = []  # a name in the abstract namespace ends with the process that holds it


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens, which nobody else gets while this process lives."""
    first, last = map(int, RANGE.read_text().split())
    outside = [port for port in range(LOWEST, HIGHEST + 1) if not first <= port <= last]
    for port in random.SystemRandom().sample(outside, len(outside)):
        if _reserve(port) and _closed(port):
            return port
    raise RuntimeError(f"no port is free outside of {first} to {last}, the range in {RANGE}")


def _reserve(port: int) -> bool:
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0rootward-test-port-{port}")
    except OSError as error:
        name.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    _taken.append(name)
    return True


def _closed(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
