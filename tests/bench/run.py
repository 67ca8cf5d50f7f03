"""The benchmark: the stock scheduler and ours, alternating in one run; medians and their ratio per row.

    run.py                     every row, five rounds (about an hour on two cores)
    run.py --quick             smaller sizes, three rounds (a few minutes)
    run.py --rows Z1,E1        only these
    run.py --list              what there is

The stock client and stock workers (E*), or fake workers that answer at once (Z*, L*, M*, S*). Runs in which other
processes used more than 0.2 cores are thrown away. CPU of the scheduler and of its Python helpers is read apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import statistics
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import graphs
from measurements import map_gather, merge_slow, paper_graphs, raw_latency, rpc_latency, zero
from processes import ROOT, Side

PAPER = [name for name in graphs.CASES if name not in ("merge-25K", "tree-15", "merge_slow-500-0.1")]
PAPER_QUICK = ["tree-13", "xarray-5", "bag-wordcount-200", "numpy-4000-20"]


@dataclass
class Row:
    """One line of the table: `measure(side, quick)` gives the numbers of one run, `shown` are those printed."""

    what: object  # text, or a function of `quick` that gives it
    measure: object
    shown: dict[str, str]
    both: bool = True

    def title(self, quick: bool) -> str:
        return self.what(quick) if callable(self.what) else self.what


def sized(full: int, quick: int):
    return lambda is_quick: quick if is_quick else full


def zero_row(kind: str, full: int, quick: int, fakes: int, shown: dict[str, str], saturation: str = "1.1", **kw) -> Row:
    wanted = sized(full, quick)

    def label(is_quick: bool) -> str:
        policy = "" if saturation == "1.1" else f", saturation {saturation}"
        return f"zero workers: {kind} {wanted(is_quick):,}, {fakes} workers{policy}"

    return Row(label, lambda side, is_quick: zero(side, kind, wanted(is_quick), fakes, saturation), shown, **kw)


CPU = {"both_us": "scheduler + helper µs/task", "scheduler_us": "of it scheduler", "helper_us": "of it helper"}
RATE = {"run_tasks_per_s": "run tasks/s", **CPU}
MEMORY = {"held_bytes": "RSS bytes per held task", "helper_mb": "helpers' RSS, MB"}
REST = {"rest_mb": "RSS at rest, MB", "rss_mb": "RSS with results held, MB", "released_mb": "RSS after release, MB"}
LATENCY = {"paced_p50_ms": "paced p50, ms", "paced_p99_ms": "paced p99, ms", "direct_p50_ms": "back to back p50, ms"}

ROWS = {
    "Z1": zero_row("merge", 50_000, 10_000, 24, RATE),
    "Z2": zero_row("map", 50_000, 10_000, 24, {**CPU, "release_us": "release, scheduler µs/task", "wall_s": "wall, s"}),
    "Z3": zero_row("map", 10_000, 3_000, 2, RATE),
    "Z4": zero_row("merge", 50_000, 10_000, 1000, RATE),
    "Z5": zero_row("map", 50_000, 10_000, 24, {**CPU, "wall_s": "wall, s"}, saturation="inf"),
    "Z6": zero_row("tree", 15, 12, 24, CPU),
    "Z7": zero_row("array", 207, 60, 24, {"wall_s": "wall, s", **CPU}),
    "Z8": zero_row("merge-delayed", 10_000, 2_000, 24, {"ingest_s": "ingest, s", **CPU}),
    "L1": Row("raw update-graph to key-in-memory", lambda side, q: raw_latency(side, 200 if q else 1000), LATENCY),
    "L2": Row("identity, stock client", lambda side, q: rpc_latency(side, 300 if q else 1000), {"p50_ms": "p50, ms"}),
    "M1": zero_row("map", 100_000, 20_000, 24, MEMORY),
    "M1a": zero_row("array", 207, 90, 24, MEMORY),
    "M2": zero_row("map", 100_000, 20_000, 24, REST),
    "E1": Row(
        "two stock workers: map 50,000 (quick: 5,000) + gather",
        lambda side, q: map_gather(side, 5_000 if q else 50_000),
        {"tasks_per_s": "tasks/s", **CPU},
    ),
    "E1b": Row(
        "the same, saturation inf",
        lambda side, q: map_gather(side, 5_000 if q else 50_000, "inf"),
        {"tasks_per_s": "tasks/s", **CPU},
    ),
    "E2": Row(
        "two stock workers: graphs of the rsds paper",
        lambda side, q: paper_graphs(side, PAPER_QUICK if q else PAPER),
        {"geomean_s": "geometric mean of walls, s", **{n: n + ", s" for n in PAPER}},
    ),
    "E3": Row(
        "two stock workers: merge_slow, 100 ms each",
        lambda side, q: merge_slow(side, 60 if q else 500, 0.1),
        {"overhead_percent": "overhead over ideal, %"},
    ),
    "S1": zero_row("merge", 10_000, 2_000, 1000, {**RATE, "rss_mb": "RSS, MB"}, both=False),
    "S2": zero_row("merge", 100_000, 20_000, 1000, {**RATE, "rss_mb": "RSS, MB"}, both=False),
    "S3": zero_row("merge", 1_000_000, 100_000, 1000, {**RATE, "rss_mb": "RSS, MB"}, both=False),
}
HIGHER_IS_BETTER = {"tasks_per_s", "run_tasks_per_s"}


def number(x: float) -> str:
    if x >= 1000:
        return f"{x:,.0f}"
    return f"{x:.1f}" if x >= 10 else f"{x:.3g}"


def table(name: str, row: Row, results: dict[str, list[dict]], limit: float, quick: bool) -> list[str]:
    kept = {side: [r for r in runs if r.get("other_load", 0) <= limit] for side, runs in results.items()}
    count = " ".join(f"{side} {len(kept[side])}/{len(results[side])}" for side in results)
    lines = [f"\n{name}  {row.title(quick)}   (runs kept: {count})"]
    for key, label in row.shown.items():
        medians = {s: statistics.median(r[key] for r in runs) for s, runs in kept.items() if runs and key in runs[0]}
        if not medians:
            continue
        line = f"     {label:32}" + "".join(f" {side} {number(value):>10}" for side, value in medians.items())
        if len(medians) == 2 and min(medians.values()) > 0:
            stock, ours = medians.values()
            ratio = ours / stock if key in HIGHER_IS_BETTER else stock / ours
            line += f"   {ratio:6.1f}x"
        lines.append(line)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, three rounds")
    parser.add_argument("--rows", help="comma-separated names; default: all")
    parser.add_argument("--rounds", type=int, help="runs of each side and row (5; with --quick 3)")
    parser.add_argument("--sides", default="stock,ours")
    parser.add_argument("--ours", help="command of our scheduler; default: the binary built by `make bench`")
    parser.add_argument("--max-other-load", type=float, default=0.2, help="cores used by other processes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the raw numbers")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list:
        for name, row in ROWS.items():
            print(f"{name:4} {row.title(args.quick)}")
        return 0
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    ours = shlex.split(args.ours) if args.ours else [str(target / "release" / "oxidask-scheduler")]
    known = {"stock": Side("stock", [sys.executable, "-m", "dask", "scheduler"]), "ours": Side("ours", ours)}
    sides = [known[name] for name in args.sides.split(",")]
    names = args.rows.split(",") if args.rows else list(ROWS)
    rounds = args.rounds or (3 if args.quick else 5)
    args.out.mkdir(parents=True, exist_ok=True)
    raw = args.out / time.strftime("%Y%m%d-%H%M%S.jsonl")
    failed = 0
    for name in names:
        row = ROWS[name]
        taken = [side for side in sides if row.both or side.name == "ours"]
        results = {side.name: [] for side in taken}
        for turn in range(rounds):
            for side in taken:
                print(f"\r\033[K{name} {side.name} {turn + 1}/{rounds}", end="", flush=True, file=sys.stderr)
                try:
                    found = row.measure(side, args.quick)
                except Exception:
                    failed += 1
                    print(file=sys.stderr)
                    traceback.print_exc(limit=-3)
                    continue
                results[side.name].append(found)
                with open(raw, "a") as f:
                    f.write(json.dumps({"row": name, "side": side.name, "quick": args.quick, **found}) + "\n")
        print("\r\033[K", end="", file=sys.stderr)
        print("\n".join(table(name, row, results, args.max_other_load, args.quick)), flush=True)
    print(f"\nRaw numbers: {raw}; failed runs: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
