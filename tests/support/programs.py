"""Other people's programs: run with a deadline and without proxies, in a terminal where that matters, nginx as a
server.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
SECONDS = 60  # that one run of a program may take
Done = subprocess.CompletedProcess[str]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without what would send a program to a proxy or to another home, and in English."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("ROOTWARD_")
    }
    return {**ours, "LC_ALL": "C.UTF-8", **(extra or {})}


def run(
    *command: str | Path,
    codes: Sequence[int] | None = (0,),
    stdin: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Done:
    """Run it to its end; AssertionError with all that it said where its exit code is none of `codes` (None: any)."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=cwd,
        env=environment(env),
        check=False,
    )
    assert codes is None or done.returncode in codes, f"{words} ended with {done.returncode}:\n{said(done)}"
    return done


def said(done: Done) -> str:
    """Both streams."""
    return f"{done.stdout}{done.stderr}"


def until(found: Callable[[], T], *, seconds: float, every: float = 0.2) -> T:
    """The first true value of `found()`; AssertionError with the last one when the time is over."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()  # never set: only the time between two looks
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline, f"not after {seconds} s: {value!r}"
        pause.wait(every)


def terminal(*command: str | Path, columns: int = 80, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run it in a terminal of so many columns: its exit code and what a person would see, both streams together."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**inherited, "TERM": "xterm", **(env or {})},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        pieces = []
        with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        os.close(ours)
        code = process.wait(SECONDS)
    return code, b"".join(pieces).decode().replace("\r\n", "\n")


_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_session_cache off;
    ssl_session_tickets off;
{servers}
}}
"""
_SERVER = """\
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name {name};
        {settings}
        location / {{ return 200 "hello from {name}\\n"; }}
    }}
"""


@contextlib.contextmanager
def nginx(folder: Path, servers: Sequence[tuple[int, str, Mapping[str, str | Path]]]) -> Iterator[Path]:
    """An nginx of our own while the block runs, one process; each server is its port, its name and its settings.

    Gives the path of its error log.
    """
    folder.mkdir(exist_ok=True)
    blocks = [
        _SERVER.format(
            port=port, name=name, settings="\n        ".join(f"{key} {value};" for key, value in settings.items())
        )
        for port, name, settings in servers
    ]
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, servers="".join(blocks)))
    log = folder / "error.log"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(log)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**environment(), "PATH": path},
    )
    try:
        for port, _, _ in servers:
            until(partial(_up_or_ended, process, port), seconds=SECONDS, every=0.02)
        if process.poll() is not None:
            raise AssertionError(f"nginx ended: {log.read_text() if log.exists() else ''}")
        yield log
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)


def _up_or_ended(process: subprocess.Popen[bytes], port: int) -> bool:
    with socket.socket() as sock:
        return process.poll() is not None or sock.connect_ex(("127.0.0.1", port)) == 0
