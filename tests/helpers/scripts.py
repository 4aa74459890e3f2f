"""Programs of their own, for what only shows in another process: its end, a fork, the environment."""

import os
import subprocess
import sys
import textwrap


def run_script(code: str, *, timeout: float = 60, **env: str) -> tuple[int, str, str]:
    """Run Python code in a fresh interpreter; return (status, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | env,
    )
    return done.returncode, done.stdout, done.stderr
