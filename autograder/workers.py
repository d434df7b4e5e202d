"""Judge many submissions at once with Dask: on processes of this machine, or on a cluster.

Locally Dask's scheduler and workers are threads of this process, and each of them sends its work to a judging process
of its own; on a cluster they are wherever they are, and do the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import pickle
import time
from collections.abc import Iterable, Iterator
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed

from autograder import judge_process
from autograder.cores import usable_cores
from autograder.errors import CourseError
from autograder.judge_process import judge_on_worker
from autograder.judging import Outcome, Settings, Work

log = logging.getLogger(__name__)

CONNECT_SECONDS = 20
LOOPBACK = "127.0.0.1:0"
LARGE_WORK = {"distributed.admin.large-graph-warning-threshold": "1GiB"}  # notebooks may be large
QUIET: dict[str, Any] = {  # what Dask does for those who watch it, which costs more than what it does for us
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}
MARGIN_SECONDS = 120  # beyond a submission's own time: reading it, naming its mistakes
AHEAD = 2  # submissions sent for each thread of the cluster; the others stay on the disk
ENDED = "it ended its worker process three times, so it could not be judged; its marks are as they were"


def judge_all(
    settings: Settings, works: Iterable[Work], workers: int | None = None, scheduler: str | None = None
) -> Iterator[Outcome]:
    """Judge submissions and give the outcomes as they come, in no particular order.

    A submission whose worker is killed is judged again; what ends its judging process again and again is given up.

    Parameters
    ----------
    settings : Settings
        What to judge by.
    works : iterable of Work
        The submissions; read as workers become free.
    workers : int, optional
        Local worker processes; as many as there are cores when not given.
    scheduler : str, optional
        Address of a Dask scheduler whose workers judge instead, such as "tcp://10.0.0.1:8786".

    Raises
    ------
    CourseError
        When there is no such scheduler, or a worker cannot judge at all.
    """
    with _client(workers or usable_cores(), scheduler) as client:
        yield from _outcomes(client, settings, iter(works))


@contextlib.contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Client]:
    with dask.config.set(LARGE_WORK | (QUIET if scheduler is None else {})):
        if scheduler is None:
            with (
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=False,
                    scheduler_kwargs={"dashboard": False, "dashboard_address": LOOPBACK},
                    worker_dashboard_address=LOOPBACK,
                    memory_limit=0,
                    silence_logs=logging.CRITICAL,
                ) as cluster,
                Client(cluster) as client,
            ):
                try:
                    yield client
                finally:
                    judge_process.close_all()
            return
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise CourseError(
                f"No Dask scheduler answers at {scheduler} ({str(error).splitlines()[0]}); "
                "start one with `dask scheduler`, or leave --scheduler away."
            ) from None
        with client:
            if not client.scheduler_info()["workers"]:
                log.warning("The scheduler at %s has no workers yet; waiting for some.", scheduler)
            try:
                yield client
            finally:
                with contextlib.suppress(Exception):  # the cluster's processes go away by themselves, but later
                    client.run(judge_process.close_all)


def _outcomes(client: Client, settings: Settings, works: Iterator[Work]) -> Iterator[Outcome]:
    packed = pickle.dumps(dataclasses.replace(settings, secret=""))
    patience = settings.time_limits.submission + MARGIN_SECONDS
    keys: dict[str, str] = {}
    arriving = as_completed([], loop=client.loop, raise_errors=False)
    room = _Room(client)

    def send() -> None:
        for work in itertools.islice(works, max(0, room.threads() * AHEAD - len(keys))):
            future = client.submit(judge_on_worker, packed, pickle.dumps(work), patience, pure=False)
            keys[str(future.key)] = work.key
            arriving.add(future)

    send()
    while keys:
        future = next(arriving)
        outcome = _outcome(future, keys.pop(str(future.key)))
        future.release()
        send()  # before the outcome is recorded, so that no worker waits for that
        yield outcome


class _Room:
    """How many threads the cluster has; workers come and go."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked = 0.0
        self._threads = 1

    def threads(self) -> int:
        if time.monotonic() - self._asked > 1:
            with contextlib.suppress(OSError):
                self._threads = max(1, sum(self._client.nthreads().values()))
            self._asked = time.monotonic()
        return self._threads


def _outcome(future: Future, key: str) -> Outcome:
    if future.status == "finished":
        kind, data = future.result()
        if kind == "outcome":
            outcome: Outcome = pickle.loads(data)
            return outcome
        if kind == "ended":
            return Outcome(key, failure=ENDED)
        raise CourseError(data.decode())
    error = future.exception() if future.status == "error" else None
    if isinstance(error, KilledWorker):
        return Outcome(key, failure=ENDED.replace("three times", "again and again"))
    if isinstance(error, ImportError | AttributeError):
        raise CourseError(
            f"A worker of the cluster has no autograder like this one ({error}); install the same commit there."
        )
    reason = f"{type(error).__name__}: {error}" if error else "the connection was lost"
    raise CourseError(f"The cluster could not judge any more ({reason}); run the same command again to go on.")
