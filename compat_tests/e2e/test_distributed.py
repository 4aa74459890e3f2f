"""distributed: a Dask cluster in processes, whose scheduler, nannies, workers and client are on the loop under test."""

from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("distributed", reason="distributed is not installed: pip install distributed")

import loops
from commands import APPS, Command

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
