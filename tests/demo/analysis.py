"""An analysis as a user writes it: the stock client, data made here, nothing that knows which scheduler serves it.

python analysis.py tcp://127.0.0.1:8786 [folder for the data]
"""

import json
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import dask
import dask.array as da
import dask.dataframe as dd
import joblib
import numpy as np
import pandas as pd
from distributed import Client, as_completed

ZONES = ["Airport", "Downtown", "Harbour", "Heights", "Mill", "Park", "Station", "University"]


@contextmanager
def step(title, http):
    """Prints the step, how many tasks the scheduler holds while it runs (on a terminal), and how long it took."""
    done = threading.Event()
    start = time.perf_counter()

    def watch():
        while not done.wait(0.2):
            with urllib.request.urlopen(f"{http}/json/counts.json", timeout=5) as reply:
                counts = json.load(reply)
            state = f"{counts['tasks']} tasks: {counts['processing']} running, {counts['memory']} in memory"
            print(f"\r\033[K  {title} … {state}", end="", flush=True)

    watcher = threading.Thread(target=watch, daemon=True)
    if sys.stdout.isatty():
        watcher.start()
    try:
        yield
    finally:
        done.set()
        if watcher.ident:
            watcher.join()
            print("\r\033[K", end="")
    print(f"  {title:46} {time.perf_counter() - start:6.2f} s", flush=True)


def trips_of_month(month, rows, folder):
    """Taxi-like trips of one month, written as one Parquet file; the number of rows."""
    rng = np.random.default_rng(month)
    miles = rng.gamma(2.0, 1.6, rows).round(2)
    minutes = miles * rng.normal(4.5, 0.8, rows).clip(2) + rng.exponential(3, rows)
    frame = pd.DataFrame(
        {
            "pickup": pd.Timestamp(2026, month, 1) + pd.to_timedelta(rng.uniform(0, 28 * 86400, rows), unit="s"),
            "zone": rng.integers(0, len(ZONES), rows),
            "passengers": rng.integers(1, 6, rows),
            "miles": miles,
            "minutes": minutes.round(1),
            "fare": (3 + 2.5 * miles + 0.4 * minutes + rng.normal(0, 1, rows)).round(2),
            "tip": (rng.random(rows) < 0.6) * rng.exponential(3, rows).round(2),
        }
    )
    frame.to_parquet(f"{folder}/trips-{month:02}.parquet")
    return rows


def estimate_pi(seed, n=200_000):
    rng = np.random.default_rng(seed)
    return 4 * np.mean(np.sum(rng.random((n, 2)) ** 2, axis=1) < 1)


def main(address, folder=None, rows=60_000, months=6):
    client = Client(address)
    http = client.dashboard_link.removesuffix("/status")
    folder = folder or tempfile.mkdtemp(prefix="oxidask-demo-data-")
    print(f"  {len(client.ncores())} workers, {sum(client.ncores().values())} threads; data in {folder}")

    with step(f"{months} Parquet files on the workers (futures)", http):
        futures = [client.submit(trips_of_month, m + 1, rows, folder) for m in range(months)]
        total = sum(future.result() for future in as_completed(futures))

    trips = dd.read_parquet(folder)
    with step("fare and tip by zone (groupby)", http):
        by_zone = trips.groupby("zone").agg({"fare": "mean", "tip": "mean", "miles": "sum"}).compute().sort_index()

    with step("zones joined by key (merge, P2P shuffle)", http):
        names = dd.from_pandas(pd.DataFrame({"zone": range(len(ZONES)), "name": ZONES}), npartitions=2)
        with dask.config.set({"dataframe.shuffle.method": "p2p"}):
            joined = trips.merge(names, on="zone", how="inner", shuffle_method="p2p", broadcast=False)
            trips_per_name = joined.groupby("name").size().compute()

    with step("mean and deviation of 16 M numbers (array)", http):
        x = da.random.default_rng(0).normal(10, 2, size=(4000, 4000), chunks=(1000, 1000))
        mean, deviation = dask.compute(x.mean(), (x - x.T).std())

    with step("π from 200 futures (map)", http):
        futures = client.map(estimate_pi, range(200))
        pi = float(np.mean([result for _, result in as_completed(futures, with_results=True)]))

    with step("three models of the fare (scikit-learn, joblib)", http):
        from sklearn.linear_model import Ridge
        from sklearn.model_selection import GridSearchCV

        sample = trips[["miles", "minutes", "fare"]].sample(frac=0.02, random_state=0).compute()
        with joblib.parallel_backend("dask", client=client):
            search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=3)
            search.fit(sample[["miles", "minutes"]], sample["fare"])

    best = by_zone["tip"].idxmax()
    miles, minutes = search.best_estimator_.coef_
    print(f"\n  {total:,} trips; {trips_per_name.sum():,} after the join, {trips_per_name.idxmax()} has the most")
    print(f"  best tips: {ZONES[best]}, {by_zone['tip'][best]:.2f} on a fare of {by_zone['fare'][best]:.2f}")
    print(f"  fare ≈ {miles:.2f} a mile + {minutes:.2f} a minute; R² {search.best_score_:.3f}")
    print(f"  array: mean {mean:.3f}, deviation of x - x.T {deviation:.3f}; π ≈ {pi:.4f}\n")

    assert total == rows * months == trips_per_name.sum()
    assert abs(mean - 10) < 0.01 and abs(deviation - 2 * np.sqrt(2)) < 0.01 and abs(pi - np.pi) < 0.01
    assert abs(miles - 2.5) < 0.2 and abs(minutes - 0.4) < 0.1
    client.close()
    for file in Path(folder).glob("*.parquet"):
        file.unlink()
    Path(folder).rmdir()


if __name__ == "__main__":
    main(*sys.argv[1:3])
