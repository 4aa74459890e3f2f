"""distributed: a Dask cluster in processes, whose scheduler, nannies, workers and client are on the loop under test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="distributed is not installed: pip install distributed")

import loops
from commands import APPS, Command

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "cluster.py"
SQUARES = [n * n for n in range(1000)]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_a_cluster_in_processes(tmp_path, authority, certificate_files, protocol):
    root = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(root)
    args = [sys.executable, "-X", "faulthandler", str(APPS / "dask_app.py"), protocol, str(root)]
    args += map(str, certificate_files)
    with Command(args, tmp_path, env={"DASK_TEMPORARY_DIRECTORY": str(tmp_path)}) as program:
        (found,) = program.wait_for("result: (.*)\n", limit=120)
        assert program.end() == 0
        assert json.loads(found) == {
            "loops": {
                "client": loops.CLASS,
                "scheduler": loops.CLASS,
                "nannies": [loops.CLASS] * 2,
                "workers": [loops.CLASS] * 2,
            },
            "protocols": [protocol],
            "map": sum(SQUARES),
            "completed": sum(SQUARES[:300]),
            "error": "7",
            "tree": sum(SQUARES[:64]),
            "bag": {"0": 334, "1": 333, "2": 333},
            "moved": [1_000_000 + i for i in range(8)],
            "scattered": [4_000_000] * 2,
            "after restart": sum(SQUARES[:100]),
            "loops after restart": [loops.CLASS] * 2,
        }
        assert "Traceback (most" not in program.output()


@pytest.mark.skipif(loops.NAME != "goloop", reason="the example is one of goroutines")
@pytest.mark.timeout(180)
def test_the_example_survives_the_death_of_a_worker(tmp_path):
    args = [sys.executable, "-X", "faulthandler", "-W", "error", str(EXAMPLE), "100000"]
    with Command(args, tmp_path, env={"DASK_TEMPORARY_DIRECTORY": str(tmp_path)}) as program:
        program.wait_for("new worker", limit=120)
        assert program.end() == 0
        assert program.output().splitlines() == [
            "2 workers, whose loops are goloop's",
            "one of them was killed",
            "9592 primes below 100000, in 100 blocks; 1 new worker",
        ]
