from pathlib import Path

import pytest
import tiny_stages


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stages.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stages.save_model(tmp_path_factory.mktemp("model"))
