"""Whether this machine is one for a ceremony: no way to a network, and a clock that is not absurd.

Everything is read from /proc and /sys; no socket is opened to find out. What counts is this process's own network
namespace: /proc/net is that one's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

_UP = 0x1  # IFF_UP
_TOLERANCE = timedelta(days=1)


def network_faults(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> list[str]:
    """Every way out of this machine, as sentences; empty where there is none. What cannot be read counts as one."""
    net = proc / "net"
    try:
        return [*_interfaces(net, sys), *_routes(net), *_addresses(net)]
    except (OSError, ValueError, IndexError) as error:
        return [f"It cannot be seen which network interfaces there are: {error}."]


def _interfaces(net: Path, sys: Path) -> Iterator[str]:
    for text in (net / "dev").read_text().splitlines()[2:]:
        name = text.partition(":")[0].strip()
        if name == "lo":
            continue
        folder = sys / "class" / "net" / name
        try:
            up = int((folder / "flags").read_text(), 16) & _UP
        except OSError:
            up = _UP  # one that cannot be looked at is not known to be down
        if up or _text(folder / "operstate") == "up":
            yield f"The network interface {name} is up. Run: ip link set {name} down"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _routes(net: Path) -> Iterator[str]:
    for text in _lines(net / "route")[1:]:
        fields = text.split()
        if fields and fields[0] != "lo":
            yield f"There is an IPv4 route by {fields[0]}."
    for text in _lines(net / "ipv6_route"):
        fields = text.split()
        if fields and fields[-1] != "lo":
            yield f"There is an IPv6 route by {fields[-1]}."


def _lines(path: Path) -> list[str]:
    """Of a file in /proc/net; empty where the kernel has no such protocol, and so no such file."""
    return path.read_text().splitlines() if path.exists() else []


def _addresses(net: Path) -> Iterator[str]:
    """Addresses that are this machine's and not loopback ones."""
    found: set[str] = set()
    above = ""
    for text in _lines(net / "fib_trie"):
        word = text.split()
        if "|--" in word:
            above = word[-1]
        elif "host" in word and "LOCAL" in word and not ipaddress.ip_address(above).is_loopback:
            found.add(above)
    for text in _lines(net / "if_inet6"):
        address = ipaddress.ip_address(bytes.fromhex(text.split()[0]))
        if not address.is_loopback:
            found.add(str(address))
    for one in sorted(found):
        yield f"This machine has the address {one}."


def clock_fault(at: datetime, now: datetime) -> str | None:
    """Why the machine's clock and the script's date do not fit; None where they are within a day of each other."""
    if abs(now - at) <= _TOLERANCE:
        return None
    days = abs(now - at) // timedelta(days=1)
    side = "behind" if now < at else "ahead of"
    return f"The machine's clock is {days} days {side} the script's date."
