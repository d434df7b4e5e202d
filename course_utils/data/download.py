"""Downloading one file: mirrors in turn, resuming, progress, checksum, and nothing half-done left in its place."""

from __future__ import annotations

import functools
import os
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from tqdm.auto import tqdm

from .checksums import file_md5, file_sha256
from .errors import DownloadError

PROBE_SECONDS = 3.0
"""How long a mirror may take to answer before it counts as out of reach."""
STALL_SECONDS = 20.0
"""How long a connection may stay silent before it is given up."""
SLOW_BYTES_PER_SECOND = 50_000
"""Below this, averaged over `SLOW_SECONDS`, the next mirror is tried, which resumes where this one stopped."""
SLOW_SECONDS = 20.0
ATTEMPTS = 3
"""How often one mirror is asked again after a connection that broke off."""
BLOCK = 1 << 18


def reachable(urls: Sequence[str], seconds: float | None = None) -> list[str]:
    """Those of `urls` that answer in time, in their order.

    All are asked at once, in threads of their own, because looking up a host name obeys no timeout: the answer
    comes after `seconds` at the latest (default `PROBE_SECONDS`), whatever the network does.
    """
    seconds = PROBE_SECONDS if seconds is None else seconds
    answered: set[str] = set()

    def ask(url: str) -> None:
        try:
            with _open(url, seconds, method="HEAD"):
                answered.add(url)
        except urllib.error.HTTPError as error:
            if error.code in (405, 501):  # it is there, and only refuses to be asked this way
                answered.add(url)
        except (OSError, HTTPException, ValueError):
            pass

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [url for url in urls if url in answered]


def download(
    urls: Sequence[str],
    path: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    sha256: str | None = None,
    markers: Sequence[str] = (),
    progress: bool = True,
) -> str:
    """Download one file to `path`, which appears only when it is complete and verified.

    Parameters
    ----------
    urls : sequence of str
        Addresses of the same bytes, tried in this order.
    path : Path
        The file to make; what has arrived so far is kept beside it, with ``.part`` added to its name.
    size : int, optional
        Its size in bytes.
    md5, sha256 : str, optional
        Its checksums; each one given is checked.
    markers : sequence of str, optional
        Texts that a complete file contains, for files that have no fixed checksum.
    progress : bool
        Show a progress bar.

    Returns
    -------
    str
        The address that delivered the last byte.

    Raises
    ------
    DownloadError
        If no mirror delivered the file. The message says what each one did.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Pieces of different mirrors or days may be joined only where a checksum proves the whole afterwards.
    resumable = bool(md5 or sha256)
    if not resumable:
        part.unlink(missing_ok=True)

    complaints: list[str] = []
    for number, url in enumerate(urls, start=1):
        last_mirror = number == len(urls)
        attempts = ATTEMPTS
        while attempts:
            attempts -= 1
            before = part.stat().st_size if part.exists() else 0
            complaint = _transfer(url, part, size, progress, hurry=resumable and not last_mirror)
            if complaint is None:
                complaint = _fault(part, size, md5, sha256, markers)
                if complaint is None:
                    os.replace(part, path)
                    return url
                part.unlink(missing_ok=True)
            now = part.stat().st_size if part.exists() else 0
            if before and not now:  # what lay there before may be to blame: this mirror gets a fair start
                attempts = max(attempts, 1)
            elif now <= before or complaint == TOO_SLOW:
                break  # it delivers nothing, or nothing right, or takes too long
            if not resumable:
                part.unlink(missing_ok=True)
        complaints.append(f"{url} {complaint}")
    kept = "; run the same again and it resumes" if part.exists() else ""
    raise DownloadError(f"{path.name} could not be downloaded{kept}: {'; '.join(complaints)}.")


TOO_SLOW = f"was slower than {SLOW_BYTES_PER_SECOND // 1000} kB/s"


def _transfer(url: str, part: Path, size: int | None, progress: bool, hurry: bool) -> str | None:
    """Fetch what `part` still lacks; None when the server says that was all of it, else what went wrong."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have == size:
        return None  # complete but for the check, which an interruption prevented
    if size is not None and have > size:
        part.unlink()
        have = 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with _open(url, STALL_SECONDS, headers=headers) as response:
            if have and not _continues(response, have):
                have = 0  # the server sends everything, or another piece than asked for
            expected = _total(response, have)
            with (
                part.open("ab" if have else "wb") as stream,
                tqdm(
                    total=expected or size,
                    initial=have,
                    unit="B",
                    unit_scale=True,
                    desc=part.name.removesuffix(".part"),
                    disable=not progress,
                ) as bar,
            ):
                since, counted = time.monotonic(), 0
                while block := response.read1(BLOCK):
                    stream.write(block)
                    bar.update(len(block))
                    counted += len(block)
                    elapsed = time.monotonic() - since
                    if elapsed >= SLOW_SECONDS:
                        if hurry and counted < SLOW_BYTES_PER_SECOND * elapsed:
                            return TOO_SLOW
                        since, counted = time.monotonic(), 0
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the piece asked for does not exist there: our beginning is not theirs
            part.unlink(missing_ok=True)
        return f"answered {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return f"failed ({reason})"
    arrived = part.stat().st_size
    if expected is not None and arrived < expected:
        return f"broke off after {arrived:,} of {expected:,} bytes"
    return None


def _open(url: str, seconds: float, *, method: str = "GET", headers: dict[str, str] | None = None) -> HTTPResponse:
    request = urllib.request.Request(
        url, method=method, headers={"User-Agent": "deep-learning-course", **(headers or {})}
    )
    return urllib.request.urlopen(request, timeout=seconds, context=_certificates())


@functools.cache
def _certificates() -> ssl.SSLContext:
    """The system's certificates, and certifi's where the system has none (Python from python.org on a Mac)."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        try:
            import certifi
        except ImportError:
            return context
        context.load_verify_locations(certifi.where())
    return context


def _continues(response: HTTPResponse, have: int) -> bool:
    """Whether the server sends exactly what follows the first `have` bytes."""
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status == 206 and start is not None and int(start[1]) == have


def _total(response: HTTPResponse, have: int) -> int | None:
    length = response.headers.get("Content-Length")
    return have + int(length) if length and length.isdigit() else None


def _fault(part: Path, size: int | None, md5: str | None, sha256: str | None, markers: Sequence[str]) -> str | None:
    """Why a finished download is not the file it should be, or None."""
    arrived = part.stat().st_size
    if size is not None and arrived != size:
        return f"delivered {arrived:,} bytes instead of {size:,}"
    if sha256 is not None and file_sha256(part) != sha256:
        return "delivered a file with another SHA-256 checksum than the registry's"
    if md5 is not None and file_md5(part) != md5:
        return "delivered a file with another MD5 checksum than the registry's"
    if markers:
        text = part.read_bytes()
        missing = [marker for marker in markers if marker.encode() not in text]
        if missing:
            return f"delivered a file without the line {missing[0]!r}, so it is not the whole text"
    return None
