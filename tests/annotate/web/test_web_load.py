"""A6 and A1 under load: a server that is killed while clients vote, and the time the next item takes."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from ward_of_doctors import client_id, item, project
from web_pages import Page, Server, ballot, serving, session

from xinglin.annotate import schema
from xinglin.annotate.audit import verify
from xinglin.annotate.people import add_rater
from xinglin.annotate.projects import add_items
from xinglin.annotate.store import Store, open_store


class Doctor(threading.Thread):
    """Judges items and keeps sending a vote, with the same client id, until it is acknowledged."""

    def __init__(self, server: Server, store: Store, name: str, made: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.page = Page(httpx.Client(base_url=server.address, timeout=30), name)
        self.cookie, self.made, self.stop = session(store, name), made, stop
        self.acknowledged: list[str] = []
        self.unexpected: Counter[int] = Counter()

    def run(self) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(httpx.TransportError, AssertionError, KeyError, ValueError):
                if not self.page.token:
                    self.page.resume(self.cookie)
                lease = self.page.lease(self.made)
                if lease is None:
                    return
                self.vote_until_saved(lease)

    def vote_until_saved(self, lease: str) -> None:
        body = ballot(lease, random.choice([(1, 2), (2, 1), (1, 1)]))
        while True:
            with contextlib.suppress(httpx.TransportError):
                found = self.page.post("/api/vote", body)
                if found.status_code == 200:
                    self.acknowledged.append(body["client_id"])
                    return
                if found.status_code not in (503,):
                    self.unexpected[found.status_code] += 1
                    return
            time.sleep(0.05)


def killed_while_voting(database: Path, num_doctors: int, num_kills: int, num_items: int, seconds: float) -> None:
    store = open_store(database)
    made = project(store, num_items, lease_minutes=600)
    names = [f"doctor-{number}" for number in range(num_doctors)]
    for name in names:
        add_rater(store, name)
    stop = threading.Event()
    with serving(database) as server:
        doctors = [Doctor(server, store, name, made, stop) for name in names]
        for doctor in doctors:
            doctor.start()
        rng = random.Random(7)
        for _ in range(num_kills):
            time.sleep(rng.uniform(0, seconds))
            server.kill()
            server.start()
        time.sleep(seconds)
        stop.set()
        for doctor in doctors:
            doctor.join(120)
    acknowledged = [key for doctor in doctors for key in doctor.acknowledged]
    with store.read() as connection:
        rows = connection.execute(select(schema.votes.c.client_id, schema.votes.c.lease_id)).all()
        places = connection.execute(select(schema.items.c.taken, schema.items.c.needed)).all()
    kept = Counter(key for key, _ in rows)
    assert len(acknowledged) > num_kills, "the doctors did vote"
    assert not [key for key in acknowledged if kept[key] != 1], "an acknowledged vote was lost or doubled"
    assert max(Counter(lease for _, lease in rows).values()) == 1
    assert all(taken <= needed for taken, needed in places), "more votes than places"
    assert not any(doctor.unexpected for doctor in doctors), [doctor.unexpected for doctor in doctors]
    found = verify(store)
    assert found.ok, found.problems[:3]
    store.engine.dispose()


def test_a_server_killed_twice_loses_nothing(database: Path) -> None:
    killed_while_voting(database, 4, 2, 400, 1.5)


@pytest.mark.slow
def test_a_server_killed_a_hundred_times_loses_nothing(database: Path) -> None:
    """A6: 20 clients, 100 times kill -9."""
    killed_while_voting(database, 20, 100, 20_000, 2.0)


@pytest.mark.slow
def test_next_item_with_ten_thousand_items_and_twenty_users(database: Path) -> None:
    """A1: the page with the next item within 200 ms for 95 of 100, 20 users who read for a second each."""
    store = open_store(database)
    made = project(store, 0, order="random", repeat_share=0.1, gold_share=0.0)
    add_items(store, made, (item(number) for number in range(10_000)))
    names = [f"doctor-{number}" for number in range(20)]
    for name in names:
        add_rater(store, name)
    taken: list[float] = []

    def work(name: str, server: Server) -> None:
        page = Page(httpx.Client(base_url=server.address, timeout=60), name).resume(session(store, name))
        for _ in range(30):
            start = time.perf_counter()
            lease = page.lease(made)
            taken.append(time.perf_counter() - start)
            time.sleep(random.uniform(0.5, 1.5))
            assert lease and page.vote(lease, key=client_id()).status_code == 200

    with serving(database) as server:
        users = [threading.Thread(target=work, args=(name, server)) for name in names]
        for user in users:
            user.start()
            time.sleep(0.05)
        for user in users:
            user.join()
    assert len(taken) == 600
    p95 = sorted(taken)[569]
    print(f"next item: median {sorted(taken)[300] * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms, n 600")
    assert p95 <= 0.2
    store.engine.dispose()
