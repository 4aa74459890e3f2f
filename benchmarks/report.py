"""Results for people: a table on the terminal, Markdown, a chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import Result, quantity
from rich.console import Console
from rich.table import Table

SUBJECT = "goloop"
CONTROL = "asyncio"  # it does not change: its spread is the noise of the machine
WIDE = 200  # columns of a terminal; in a narrower one processor time and latency are left to the JSON


def figure(result: Result, who: str) -> str:
    value = result.median(who)
    if value is None:
        return "-"
    spread = result.spread(who)
    text = f"{value:.0f} B" if result.figure == "memory" else quantity(value)
    return text if spread is None else f"{text} ±{spread / 2:.0%}"


def ratio(result: Result, other: str) -> str:
    value = result.ratio(SUBJECT, other)
    return "-" if value is None else f"{value:.2f}"


def cpu(result: Result, who: str) -> str:
    """Processor time per operation: of what is measured, and of the load generator."""
    mine, client = result.median(who, "cpu"), result.median(who, "client_cpu")
    if mine is None:
        return "-"
    return f"{mine * 1e6:.3g}" + (f" + {client * 1e6:.3g}" if client is not None else "")


def latency(result: Result, who: str) -> str:
    p50, p99 = result.median(who, "p50"), result.median(who, "p99")
    return "-" if p50 is None or p99 is None else f"{p50:.3g} / {p99:.3g}"


def reached(result: Result) -> bool | None:
    """Is the goal reached? None: there is none, or nothing to compare with."""
    value = result.ratio(SUBJECT, "uvloop")
    if value is None or result.target is None:
        return None
    return value <= result.target if result.figure == "memory" else value >= result.target


def rows(results: Sequence[Result], contestants: Sequence[str]) -> tuple[list[str], list[tuple[Result, list[str]]]]:
    """The columns, and what stands in them for each result."""
    others = [who for who in contestants if who != SUBJECT]
    heads = ["case", "per second of", *contestants, *(f"{SUBJECT}/{who}" for who in others if SUBJECT in contestants)]
    heads += ["goal", *(f"CPU µs {who}" for who in contestants), "p50 / p99 µs"]
    lines = []
    for result in results:
        goal = "-" if result.target is None else f"{'≤' if result.figure == 'memory' else '≥'} {result.target:g}"
        line = [result.name, result.unit, *(figure(result, who) for who in contestants)]
        if SUBJECT in contestants:
            line += [ratio(result, who) for who in others]
        line += [goal, *(cpu(result, who) for who in contestants), latency(result, SUBJECT)]
        lines.append((result, line))
    return heads, lines


def show(results: Sequence[Result], contestants: Sequence[str], console: Console) -> None:
    """Print one table with a section for each family. CPU: of the server or worker + of the load generator."""
    heads, lines = rows(results, contestants)
    keep = len(heads) if console.width >= WIDE else heads.index("goal") + 1
    heads, lines = heads[:keep], [(result, line[:keep]) for result, line in lines]
    table = Table(show_lines=False)
    for head in heads:
        table.add_column(head, justify="left" if head in ("case", "per second of") else "right")
    family = None
    for result, line in lines:
        if result.family != family:
            family = result.family
            table.add_section()
            table.add_row(f"[bold]{family}")
        good = reached(result)
        style = None if good is None else "green" if good else "red"
        table.add_row(*line, style=style)
    console.print(table)


def markdown(
    results: Sequence[Result], contestants: Sequence[str], env: dict[str, Any], settings: dict[str, Any]
) -> str:
    """What stands in RESULTS.md: what was measured, on what, and a table of medians and ratios."""
    heads = ["workload", *contestants]
    others = [who for who in contestants if who != SUBJECT and SUBJECT in contestants]
    heads += [f"/ {who}" for who in others]
    noise = [spread for result in results if (spread := result.spread(CONTROL)) is not None]
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items())
    text = [
        f"Medians of {settings['repeats']} interleaved runs of {settings['seconds']:g} s, each in a fresh process; "
        f"CPython {env['python']}, {versions}; {env['cores']} cores of {env['processor']}, Linux {env['kernel']}, "
        f"{env['date']} UTC. The load generator runs on the same cores. ± is half of (maximum - minimum) / median; "
        f"that of asyncio, which did not change, tells how noisy the machine was: median ±{median(noise) / 2:.0%}.",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for result in results:
        line = [f"{result.family}: {result.name}", *(figure(result, who) for who in contestants)]
        line += [ratio(result, who) for who in others]
        text.append("| " + " | ".join(line) + " |")
    return "\n".join(text) + "\n"


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0


def draw(results: Sequence[Result], path: Path) -> None:
    """A chart of goloop / uvloop with the range of the pairs, a bar a case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [(result, pairs) for result in results if (pairs := sorted(result.ratios(SUBJECT, "uvloop")))]
    if not shown:
        return
    shown.reverse()  # the first on top
    middles = [result.ratio(SUBJECT, "uvloop") or 0 for result, _ in shown]
    errors = [[m - p[0] for m, (_, p) in zip(middles, shown, strict=True)]]
    errors.append([p[-1] - m for m, (_, p) in zip(middles, shown, strict=True)])
    axes: Any
    chart, axes = pyplot.subplots(figsize=(9, 1 + 0.22 * len(shown)))
    colours = [
        "#3b7a57" if reached(r) else "#8aa9c9" if m >= 1 else "#c0504d"
        for (r, _), m in zip(shown, middles, strict=True)
    ]
    names = [f"{result.family}: {result.name}" for result, _ in shown]
    axes.barh(names, [m - 1 for m in middles], left=1, xerr=errors, color=colours, ecolor="#888888")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(
        "goloop / uvloop: median, range of the pairs; green: goal reached; memory: less is better", fontsize=8
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    chart.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.savefig(path, metadata={"Date": None})
    pyplot.close(chart)
