"""goloop side by side with asyncio, other event loops and a C server: make bench.

    python benchmarks/run.py [--only tcp_echo,timers] [--loops uvloop,goloop] [--repeats 5] [--seconds 0.5]

Every loop of loops.py that is installed takes part; one that answers wrong is dropped, and the results say so. With
asyncio, uvloop, goloop and C a whole run takes about three quarters of an hour, --quick a quarter of that; each further
loop adds a quarter. --full measures every combination of connections and sizes. Results are written to
benchmarks/results/ as JSON, Markdown and a chart; --from draws them again.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import cases
import harness
import loops
import qualify
import report
from rich.console import Console

RESULTS = Path(__file__).parent / "results"
PACKAGES = (loops.SUBJECT, *loops.PEERS, "aiohttp", "uvicorn", "httptools")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default="", help="families, beginnings of 'family: case', or parts of names, with commas"
    )
    parser.add_argument(
        "--loops",
        default="",
        help="e.g. uvloop,goloop,goloop+GOLOOP_IO=auto; default: asyncio, goloop, C and every installed one of "
        + ", ".join(loops.PEERS),
    )
    parser.add_argument("--repeats", type=int, help="runs of each; default: 5, with --quick 3")
    parser.add_argument("--seconds", type=float, help="length of a run; default: 0.5, with --quick 0.3")
    parser.add_argument("--quick", action="store_true", help="few cases, three repeats: a look, not a result")
    parser.add_argument("--full", action="store_true", help="every combination of connections and sizes")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parser.add_argument("--out", type=Path, default=RESULTS / "latest.json", help="where the results go")
    parser.add_argument("--from", type=Path, dest="source", help="show, and draw again, an earlier run's JSON")
    return parser.parse_args()


def chosen(settings: cases.Settings, only: str) -> list[harness.Case]:
    # A name of a case may have commas, before a space and in numbers.
    wanted = [word for word in re.split(r",(?! |\d{3}\b)", only) if word]
    every = cases.all_cases(settings)
    if not wanted:
        return every
    families = {case.family for case in every}

    def meets(case: harness.Case, word: str) -> bool:
        if word in families:
            return case.family == word
        title = f"{case.family}: {case.name}"
        return title.startswith(word) if ": " in word else word in title

    return [case for case in every if any(meets(case, word) for word in wanted)]


def participants(asked: str, console: Console) -> list[str]:
    """Who takes part. Whoever is asked for and not installed is left out aloud, the others in silence."""
    if not asked:
        return loops.default_contestants()
    names = asked.split(",")
    unknown = [name for name in names if loops.base(name) not in loops.KNOWN]
    if unknown:
        raise SystemExit(f"run.py: {', '.join(unknown)}: known are {', '.join(loops.KNOWN)}")
    missing = [name for name in names if not loops.installed(loops.base(name))]
    if missing:
        console.print(f"not installed, and left out: {', '.join(missing)}", style="yellow")
    return [name for name in names if name not in missing]


def publish(path: Path, console: Console) -> None:
    """Show the results in a file, and write the Markdown and the chart beside it."""
    env, settings, results = harness.load(path)
    contestants = settings["contestants"]
    report.show(results, contestants, console)
    if loops.CONTROL not in contestants:
        console.print("[red]without asyncio as a control this run says nothing about the noise: it does not count")
    elif settings["repeats"] < 5:
        console.print("[red]fewer than five repeats: this run does not count")
    path.with_suffix(".md").write_text(report.markdown(results, contestants, env, settings))
    report.draw(results, contestants, path.with_suffix(".svg"))
    console.print(
        f"load average {env['load_before']:.1f} before, {env['load_after']:.1f} after; written: {path}, .md, .svg"
    )


def main() -> int:
    args = arguments()
    console = Console(width=None if sys.stdout.isatty() else 240)
    if args.source is not None:
        publish(args.source, console)
        return 0
    seconds = args.seconds or (0.3 if args.quick else 0.5)
    settings = cases.Settings(seconds, 0.1 if args.quick else 0.2, args.full, args.quick)
    selection = chosen(settings, args.only)
    if args.list or not selection:
        for case in selection or cases.all_cases(settings):
            console.print(f"{case.family}: {case.name}")
        return 0 if args.list else 2
    contestants = participants(args.loops, console)
    families = list(dict.fromkeys(case.family for case in selection))
    repeats = args.repeats or (3 if args.quick else 5)
    env = harness.environment(PACKAGES)
    dropped = qualify.qualify(contestants, families, qualify.checks(), console)
    results = harness.interleave(selection, contestants, repeats, console, loops.is_peer, dropped)
    env["load_after"] = os.getloadavg()[0]
    used = {"repeats": repeats, "seconds": seconds, "warmup": settings.warmup, "contestants": contestants}
    harness.save(args.out, env, used, results)
    publish(args.out, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
