"""Half a minute of what `make soak` does for longer."""

from __future__ import annotations

import pytest
import soak


# Statements whose connection is gone are not closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_half_a_minute(tmp_path):
    figures = soak.run(tmp_path, seconds=30, clients=3, seed=7)
    done = figures.done
    assert done["kill"] >= 2 and done["check"] >= 3 and done["verified"] == 2, figures.text()
    for statement in soak.STATEMENTS:
        assert done[statement.__name__] > 0, figures.text()
    for job_type in soak.JOBS:
        assert done[f"job {job_type}"] > 0, figures.text()
    assert done["remade"] > 0 and done["held"] > 0, figures.text()
    assert done["read"] > 0 and done["count"] > 0 and done["event"] > 0, figures.text()
