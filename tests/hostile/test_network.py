"""No network: not by TCP, UDP, DNS, nor by the sockets of Unix, of the kernel or of a virtual machine's host."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from classroom import Classroom

REACHED = "    raise RuntimeError('reached ' + str(reply))\n"


def attempt(body: str) -> str:
    """A solution that tries to get through, and says whether it did."""
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    return (
        "import os, socket\nsocket.setdefaulttimeout(0.5)\ndef double(x):\n    try:\n"
        f"{lines}    except OSError as error:\n        raise RuntimeError('no way: ' + str(error)) from None\n{REACHED}"
    )


@pytest.mark.parametrize(
    "body",
    [
        "reply = socket.create_connection(('8.8.8.8', 53))",
        "reply = socket.create_connection(('127.0.0.1', PORT)).recv(10)",
        "reply = socket.create_connection(('localhost', PORT)).recv(10)",
        "reply = socket.create_connection(('::1', PORT)).recv(10)",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.sendto(b'x', ('8.8.8.8', 53))\nreply = s.recv(10)",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\ns.sendto(b'x', ('255.255.255.255', 9))\nreply = 1",
        "reply = socket.getaddrinfo('example.org', 80)",
        "reply = socket.gethostbyname('localhost.localdomain.example')",
        "import urllib.request\nreply = urllib.request.urlopen('http://127.0.0.1:PORT/').read()",
        "s = socket.socket(socket.AF_UNIX)\ns.connect('UNIX')\nreply = s.recv(10)",
        "s = socket.socket(socket.AF_UNIX)\ns.connect('\\0ABSTRACT')\nreply = s.recv(10)",
        "s = socket.socket(socket.AF_UNIX)\ns.connect('/run/docker.sock')\nreply = s.recv(10)",
        "reply = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "reply = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "reply = socket.socket(40, socket.SOCK_STREAM)",  # vsock: a virtual machine's host
        "reply = socket.socket(38, socket.SOCK_SEQPACKET)",  # the kernel's ciphers
        "reply = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    ],
)
def test_nothing_is_reached(classroom: Classroom, tmp_path: Path, body: str) -> None:
    """A listener waits on every address that the attacks try on this machine, so that they could succeed."""
    listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
    listeners[1].bind(str(tmp_path / "s"))
    abstract = f"hostile-{tmp_path}"
    listeners[2].bind(f"\0{abstract}")
    for listener in listeners:
        listener.listen()
        threading.Thread(target=greet, args=(listener,), daemon=True).start()
    places = {"PORT": str(listeners[0].getsockname()[1]), "ABSTRACT": abstract, "AF_UNIX": "AF_UNIX"}
    for word, place in (places | {"UNIX'": f"{tmp_path}/s'"}).items():
        body = body.replace(word, place)
    code = attempt(body)
    try:
        report = classroom.attack({"double": code}, lost=["double"], says="no way: ")
        assert "reached" not in report.told
    finally:
        for listener in listeners:
            listener.close()


def greet(listener: socket.socket) -> None:
    """Answer whoever connects."""
    try:
        while True:
            connection, _ = listener.accept()
            connection.sendall(b"welcome")
            connection.close()
    except OSError:
        pass


def test_a_descriptor_sent_over_the_channel_gets_nowhere(classroom: Classroom) -> None:
    """The judge reads bytes and nothing else; what is passed along with them is dropped."""
    code = (
        "import os, socket\ndef double(x):\n    for fd in range(3, 64):\n        try:\n"
        "            s = socket.socket(fileno=os.dup(fd))\n            s.getpeername()\n"
        "            socket.send_fds(s, [b'\\0' * 8], [os.open('/tmp', 0)] * 100)\n"
        "        except OSError:\n            pass\n    os._exit(0)\n"
    )
    before = len(list(Path("/proc/self/fd").iterdir()))
    classroom.attack({"double": code}, lost=["double"], says="double")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
