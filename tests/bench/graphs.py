"""The task graphs: those of the rsds paper (scripts/usecases.py of It4innovations/rsds), rewritten
for today's dask, without the packages that are not needed (xarray and dataframe shapes are made
with dask.array and dask.delayed of the same form)."""

import time

import dask
import dask.array as da
import dask.bag as db
import numpy as np
from dask import delayed


@delayed(pure=False)
def do_something(x):
    return x * 10


@delayed(pure=False)
def slp(d):
    time.sleep(d)
    return d


@delayed(pure=False)
def merge_(*args):
    return sum(args)


@delayed(pure=False)
def add(x, y):
    return x + y


def merge(count):
    return merge_(*[do_something(x) for x in range(count)])


def merge_slow(count, delay):
    return merge_(*[slp(delay) for _ in range(count)])


def tree(exp):
    L = list(range(2**exp))
    while len(L) > 1:
        L = [add(L[i], L[i + 1]) for i in range(0, len(L), 2)]
    return L[0]


def numpy_transpose(size, chunks):
    x = da.random.random((size, size), chunks=(size // chunks, size // chunks))
    y = x + x.T
    return y[::2, size // 2 :].mean(axis=1).sum()


def xarray_like(chunk, nlat=25, nlon=53, nt=2920, groups=52):
    """air_temperature (2920 x 25 x 53): the mean of each of 52 weeks over time is
    subtracted from that week, then all is summed; chunked in lat and lon."""
    x = da.random.random((nt, nlat, nlon), chunks=(-1, chunk, chunk))
    week = nt // groups
    parts = []
    for g in range(groups):
        w = x[g * week : (g + 1) * week]
        parts.append(w - w.mean(axis=0))
    return da.concatenate(parts, axis=0).sum()


@delayed(pure=False)
def make_part(i, n):
    rng = np.random.default_rng(i)
    return rng.integers(0, 26, n), rng.random(n)


@delayed(pure=False)
def chunk_agg(p):
    k, v = p
    return np.bincount(k, v, 26), np.bincount(k, minlength=26)


@delayed(pure=False)
def filt(p):
    k, v = p
    return v[v > 0.5]


@delayed(pure=False)
def resample(v):
    return v[: len(v) // 2 * 2].reshape(-1, 2).mean(axis=1).sum()


@delayed(pure=False)
def combine(ps):
    return sum(p[0] for p in ps), sum(p[1] for p in ps)


@delayed(pure=False)
def total(ps):
    return float(sum(np.sum(p) for p in ps))


def treered(f, xs, k=8):
    while len(xs) > 1:
        xs = [f(xs[i : i + k]) for i in range(0, len(xs), k)]
    return xs[0]


def groupby_like(days=90, per=3600):
    """df.groupby('name').x.mean() and a filtered resample over `days` x 24 partitions."""
    parts = [make_part(i, per) for i in range(days * 24)]
    m = treered(combine, [chunk_agg(p) for p in parts])
    s = treered(total, [resample(filt(p)) for p in parts])
    return total([m, s])


def join_like(n=24, rows=2000):
    """A shuffle by tasks, all-to-all: n splits of n partitions each, then n joins."""

    @delayed(pure=False)
    def split(p, k):
        a, v = p
        return [v[a % k == i] for i in range(k)]

    @delayed(pure=False)
    def pick(s, i):
        return s[i]

    @delayed(pure=False)
    def join(xs):
        return float(sum(x.sum() for x in xs))

    parts = [make_part(i, rows) for i in range(n)]
    sp = [split(p, n) for p in parts]
    return total([join([pick(s, i) for s in sp]) for i in range(n)])


WORDS = (
    "the quick brown fox jumps over the lazy dog while seven wise owls watch "
    "an old river carry leaves toward the quiet sea"
).split()


def _text(i, n):
    rng = np.random.default_rng(i)
    return [" ".join(WORDS[j] for j in rng.integers(0, len(WORDS), 12)) for _ in range(n)]


def wordcount(partitions=200, lines=200):
    b = db.from_delayed([delayed(_text, pure=False)(i, lines) for i in range(partitions)])
    return b.map(str.split).flatten().frequencies(split_every=8).topk(5, key=1)


def bag_product(count=10000, partitions=20):
    b = db.range(count, npartitions=partitions).map(lambda x: {"age": x * 37 % 90, "name": "n" * (x % 13)})
    p1 = b.filter(lambda r: r["age"] > 85)
    p2 = p1.product(p1)
    return p2.filter(lambda x: x[0]["age"] > x[1]["age"]).pluck(1).map(lambda r: len(r["name"])).sum()


def array100k(side=158):
    """About 100k tasks: elementwise chain over side x side chunks, then a tree sum."""
    x = da.ones((side * 4, side * 4), chunks=(4, 4))
    y = (x + 1) * 2 - x.T
    return y.sum()


CASES = {
    "merge-10K": lambda: merge(10_000),
    "merge-25K": lambda: merge(25_000),
    "merge_slow-500-0.1": lambda: merge_slow(500, 0.1),
    "tree-13": lambda: tree(13),
    "tree-15": lambda: tree(15),
    "groupby-90-1H": lambda: groupby_like(90, 3600),
    "join-48": lambda: join_like(48),
    "xarray-5": lambda: xarray_like(5),
    "bag-wordcount-200": lambda: wordcount(200, 200),
    "bag-product-20": lambda: bag_product(10_000, 20),
    "numpy-4000-20": lambda: numpy_transpose(4000, 20),
    "numpy-4000-40": lambda: numpy_transpose(4000, 40),
}


def ntasks(obj, optimize=True):
    (o,) = dask.optimize(obj) if optimize else (obj,)
    return len(dict(o.__dask_graph__()))


if __name__ == "__main__":
    for k, f in CASES.items():
        t = time.time()
        o = f()
        t1 = time.time()
        n = ntasks(o)
        print(f"{k:22s} tasks={n:7d} build={t1 - t:.2f}s optimise={time.time() - t1:.2f}s")
    o = array100k()
    print("array100k", ntasks(o), "raw", len(dict(o.__dask_graph__())))
