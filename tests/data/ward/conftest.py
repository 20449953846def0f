from pathlib import Path

import pytest

from xinglin.data.ward.world import World, load_world

FIXTURE = Path(__file__).parent / "fixture"


@pytest.fixture(scope="session")
def world() -> World:
    return load_world(FIXTURE)
