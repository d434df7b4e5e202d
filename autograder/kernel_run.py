"""Runs the cells of a notebook in a kernel of its own."""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from traitlets.config import Config
from zmq import ZMQError

TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class CellRaised(Exception):
    """A cell raised an exception; the message is its name and its text."""


class KernelEnded(Exception):
    """The kernel's process ended, or never began to answer."""


def run_cells(
    notebook: NotebookNode,
    folder: Path,
    sockets: Path,
    environment: Mapping[str, str],
    *,
    on_start: Callable[[NotebookNode], None],
    on_executed: Callable[[NotebookNode], None],
) -> None:
    """Run all code cells of a notebook in order and in place, in one new kernel, without a limit of time.

    Parameters
    ----------
    notebook : NotebookNode
        The notebook; its cells get their outputs.
    folder : Path
        Where the kernel works.
    sockets : Path
        A folder for the sockets through which it is spoken to: TCP ports would be open to everyone on the machine.
    environment : mapping of str to str
        All environment variables of the kernel.
    on_start, on_executed : callable
        Called with each code cell before it runs and when it is done.

    Raises
    ------
    CellRaised
        Where a cell raises an exception.
    KernelEnded
        Where the kernel's process ends by itself or is killed, or does not start.
    KeyboardInterrupt
        On Ctrl-C and where this process is told to end; the kernel has ended then.
    """
    posix = os.name == "posix"
    client = _Client(
        notebook,
        kernel_name="python3",
        timeout=None,
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        on_cell_start=lambda cell, cell_index: on_start(cell) if cell.cell_type == "code" else None,
        on_cell_executed=lambda cell, cell_index, execute_reply: on_executed(cell),
        config=Config({"KernelManager": {"transport": "ipc", "ip": str(sockets / "kernel")}} if posix else {}),
    )
    try:
        asyncio.run(client.run(environment))
    except CellExecutionError as error:
        raise CellRaised(TERMINAL_COLOURS.sub("", f"{error.ename}: {error.evalue}".strip())) from error
    except (DeadKernelError, RuntimeError, AssertionError, ZMQError, asyncio.CancelledError) as error:
        # What nbclient raises depends on what it was doing when the kernel went.
        if client.interrupted:
            raise KeyboardInterrupt from None
        raise KernelEnded(str(error)) from error


class _Client(NotebookClient):
    """A client that tells being interrupted from a kernel that crashed.

    nbclient's own handlers of signals end the kernel under the running cell, which then looks like a crash.
    """

    interrupted = False

    async def run(self, environment: Mapping[str, str]) -> None:
        self._running = asyncio.current_task()
        try:
            await self.async_execute(env=dict(environment))
        finally:
            if self.km is not None:  # interrupted while it started; nbclient would leave it running
                await self._async_cleanup_kernel()
                atexit.unregister(self._cleanup_kernel)

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        """Start the kernel, with signals in our own hands."""
        if os.name == "posix":
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, self._stop)
        await super().async_start_new_kernel(**kwargs)

    def _stop(self) -> None:
        self.interrupted, self.shutdown_kernel = True, "immediate"
        if self._running is not None:
            self._running.cancel()
