"""Results for people: a table on the terminal, Markdown, a chart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import loops
from harness import Result, quantity
from loops import CONTROL, SUBJECT
from rich.console import Console
from rich.table import Table

COSTS = (
    "processor time in µs, all threads (user + system), ± as above; context switches; "
    "median and 99th percentile of the time to the answer in µs"
)


def spread_of(result: Result, who: str, figure: str = "") -> str:
    spread = result.spread(who, figure)
    return "" if spread is None else f" ±{spread / 2:.0%}"


def figure(result: Result, who: str) -> str:
    value = result.median(who)
    if value is None:
        return "-"
    return (f"{value:.0f} B" if result.figure == "memory" else quantity(value)) + spread_of(result, who)


def ratio(result: Result, other: str, figure: str = "") -> str:
    value = result.ratio(SUBJECT, other, figure)
    return "-" if value is None else f"{value:.2f}"


def cpu(result: Result, who: str) -> str:
    """Processor time per operation of what is measured, and how it divides into user and system."""
    whole, system = result.median(who, "cpu"), result.median(who, "system")
    if whole is None:
        return "-"
    digits = max(0, 2 - math.floor(math.log10(whole * 1e6))) if whole > 0 else 0
    user = None if system is None else max(whole - system, 0.0)
    parts = "" if user is None or system is None else f" ({user * 1e6:.{digits}f} + {system * 1e6:.{digits}f})"
    return f"{whole * 1e6:.{digits}f}{parts}{spread_of(result, who, 'cpu')}"


def switches(result: Result, who: str) -> str:
    value = result.median(who, "switches")
    return "-" if value is None else f"{value:.2g}"


def latency(result: Result, who: str) -> str:
    p50, p99 = result.median(who, "p50"), result.median(who, "p99")
    return "-" if p50 is None or p99 is None else " / ".join(microseconds(value) for value in (p50, p99))


def microseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def reached(result: Result) -> bool | None:
    """Is the goal reached? None: there is none, or nothing to compare with."""
    value = result.ratio(SUBJECT, loops.RIVAL)
    if value is None or result.target is None:
        return None
    return value >= result.target if result.figure == "rate" else value <= result.target


def compared(contestants: Sequence[str]) -> list[str]:
    """Those that goloop has a column of ratios to; the further peers share one, that of the best of them."""
    if SUBJECT not in contestants:
        return []
    shared = loops.others(contestants)
    return [who for who in contestants if who != SUBJECT and who not in shared]


def best_other(result: Result, contestants: Sequence[str], figure: str = "") -> str:
    """goloop in relation to the best of the further peers in that figure, with its name."""
    best = result.best(loops.others(contestants), figure)
    value = None if best is None else result.ratio(SUBJECT, best, figure)
    return "-" if value is None else f"{value:.2f} {best}"


def throughput(result: Result, contestants: Sequence[str]) -> list[str]:
    """What stands in the first table: figures and ratios."""
    line = [figure(result, who) for who in contestants] + [ratio(result, who) for who in compared(contestants)]
    return line + [best_other(result, contestants)] * has_others(contestants)


def throughput_heads(contestants: Sequence[str]) -> list[str]:
    heads = [*contestants, *(f"/ {who}" for who in compared(contestants))]
    return heads + ["/ best other"] * has_others(contestants)


def has_others(contestants: Sequence[str]) -> bool:
    return SUBJECT in contestants and bool(loops.others(contestants))


def costs(result: Result, contestants: Sequence[str]) -> list[str]:
    """What stands in the second table: what an operation costs with goloop, uvloop, and the other that needs least."""
    line = []
    shown = [who for who in (SUBJECT, loops.RIVAL) if who in contestants]
    best = result.best(loops.others(contestants), "cpu")
    for who in shown:
        line += [cpu(result, who), switches(result, who), latency(result, who)]
    if has_others(contestants):
        named = "-" if best is None else f"{best} {cpu(result, best)}"
        line += [named, *((switches(result, best), latency(result, best)) if best is not None else ("-", "-"))]
    if len(shown) == 2:
        line.append(ratio(result, loops.RIVAL, "cpu"))
    return line + [best_other(result, contestants, "cpu")] * has_others(contestants)


def costs_heads(contestants: Sequence[str]) -> list[str]:
    shown = [who for who in (SUBJECT, loops.RIVAL) if who in contestants]
    named = shown + ["best other"] * has_others(contestants)
    heads = [f"{what} {who}" for who in named for what in ("CPU", "switches", "p50 / p99")]
    heads += [f"CPU / {loops.RIVAL}"] * (len(shown) == 2)
    return heads + ["CPU / best other"] * has_others(contestants)


def goal(result: Result) -> str:
    return "-" if result.target is None else f"{'≥' if result.figure == 'rate' else '≤'} {result.target:g}"


Line = tuple[str, list[str], str | None]  # family, cells, style


def print_table(title: str, heads: Sequence[str], lines: Sequence[Line], console: Console) -> None:
    """With a section for each family."""
    table = Table(title=title, show_lines=False)
    for head in ("case", *heads):
        table.add_column(head, justify="left" if head in ("case", "per second of") else "right")
    known = None
    for family, cells, style in lines:
        if family != known:
            known = family
            table.add_section()
            table.add_row(f"[bold]{family}")
        table.add_row(*cells, style=style)
    console.print(table)


def show(results: Sequence[Result], contestants: Sequence[str], console: Console) -> None:
    """Print both tables, and who was dropped."""
    styles = {None: None, True: "green", False: "red"}
    lines: list[Line] = [
        (
            result.family,
            [result.name, result.unit, *throughput(result, contestants), goal(result)],
            styles[reached(result)],
        )
        for result in results
    ]
    print_table("throughput", ["per second of", *throughput_heads(contestants), "goal"], lines, console)
    lines = [
        (result.family, [result.name, *costs(result, contestants)], None)
        for result in results
        if result.values(SUBJECT, "cpu")
    ]
    if lines:
        print_table(f"per operation: {COSTS}", costs_heads(contestants), lines, console)
    for line in failures(results):
        console.print(line, style="yellow", markup=False)


def failures(results: Sequence[Result]) -> list[str]:
    """Who was dropped from what, and why: a line for each reason."""
    families: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for who, why in result.dropped.items():
            met = families.setdefault((who, why), [])
            if result.family not in met:
                met.append(result.family)
    return [f"{who} is left out of {', '.join(met)}: {why}" for (who, why), met in families.items()]


def table_of(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
        *("| " + " | ".join(line) + " |" for line in lines),
    ]


def markdown(
    results: Sequence[Result], contestants: Sequence[str], env: dict[str, Any], settings: dict[str, Any]
) -> str:
    """What stands in RESULTS.md: what was measured, on what, and the tables of figures, ratios and costs."""
    spreads = [spread for result in results if (spread := result.spread(CONTROL)) is not None]
    noise = statistics.median(spreads or [0]) / 2
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items())
    text = [
        f"Medians of {settings['repeats']} interleaved runs of {settings['seconds']:g} s, each in a fresh process; "
        f"CPython {env['python']}, {versions}; {env['cores']} cores of {env['processor']}, Linux {env['kernel']}, "
        f"{env['date']} UTC. The load generator runs on the same cores. ± is half of (maximum - minimum) / median; "
        f"that of asyncio, which did not change, tells how noisy the machine was: median ±{noise:.0%}.",
        "",
    ]
    if has_others(contestants):
        text[0] += " The best other is the best one in that row of " + ", ".join(loops.others(contestants)) + "."
    names = {id(result): f"{result.family}: {result.name}" for result in results}
    lines = [[names[id(result)], *throughput(result, contestants)] for result in results]
    text += table_of(["workload", *throughput_heads(contestants)], lines)
    if SUBJECT in contestants:
        text += ["", f"Per operation: {COSTS}.", ""]
        measured = [result for result in results if result.values(SUBJECT, "cpu")]
        lines = [[names[id(result)], *costs(result, contestants)] for result in measured]
        text += table_of(["workload", *costs_heads(contestants)], lines)
    left_out = failures(results)
    if left_out:
        text += ["", "Left out for a wrong answer, a crash, or none in time:", "", *(f"* {line}" for line in left_out)]
    return "\n".join(text) + "\n"


def bars(results: Sequence[Result], contestants: Sequence[str]) -> list[tuple[str, str, list[float]]]:
    """What the chart shows: for each result goloop / uvloop, and goloop / the best other, all pairs of each."""
    got = []
    for result in results:
        best = result.best(loops.others(contestants))
        for name, other in ((f"{result.family}: {result.name}", loops.RIVAL), (f"  / {best}", best)):
            pairs = sorted(result.ratios(SUBJECT, other)) if other is not None else []
            if pairs:
                good = reached(result) if other == loops.RIVAL else None
                better = (statistics.median(pairs) >= 1) == (result.figure == "rate")
                colour = (
                    "#3b7a57" if good else "#c0504d" if not better else "#8aa9c9" if other == loops.RIVAL else "#b9a7cf"
                )
                got.append((name, colour, pairs))
    return got


def draw(results: Sequence[Result], contestants: Sequence[str], path: Path) -> None:
    """A chart of goloop / uvloop and goloop / the best other, with the range of the pairs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = bars(results, contestants)
    if not shown:
        return
    shown.reverse()  # the first on top
    middles = [statistics.median(pairs) for _, _, pairs in shown]
    errors = [[m - pairs[0] for m, (_, _, pairs) in zip(middles, shown, strict=True)]]
    errors.append([pairs[-1] - m for m, (_, _, pairs) in zip(middles, shown, strict=True)])
    axes: Any
    chart, axes = pyplot.subplots(figsize=(9, 1 + 0.2 * len(shown)))
    places = range(len(shown))
    colours = [colour for _, colour, _ in shown]
    axes.barh(places, [m - 1 for m in middles], left=1, xerr=errors, color=colours, ecolor="#888888")
    axes.set_yticks(places, [name for name, _, _ in shown])
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(
        "goloop / uvloop, and below it goloop / the best other: median, range of the pairs; green: goal reached; "
        "red: goloop is behind; memory: less is better",
        fontsize=7,
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    chart.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.savefig(path, metadata={"Date": None})
    pyplot.close(chart)
