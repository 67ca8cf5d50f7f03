"""Writes units.jsonl, literals.jsonl and stock-scheduler.json from the installed dask and distributed."""

import json
import pathlib

import distributed  # noqa: F401  (registers its defaults)
from dask import config
from dask.utils import parse_bytes, parse_timedelta

here = pathlib.Path(__file__).parent

TIMES = "s ms us ns m h d w second seconds minute minutes hour hours day week weeks millisecond microseconds nanoseconds".split()
BYTES = "B kB MB GB TB PB KiB MiB GiB TiB PiB k M G T P Ki Mi Gi Ti Pi kib mib gb b".split()
NUMBERS = ["3", "1.5", "0", "100", "1e3", "1_000", ".5", "0.1", " 7 "]
ODD = [
    "",
    " ",
    "x",
    "1 foos",
    "1e",
    "--1",
    "1.2.3",
    "5 m s",
    "s",
    "MB",
    "e6",
    "1__0",
    "1e6 kB",
    "5.4 kB",
    "12 345",
    "inf",
    "nan",
    "MS",
    "Us",
    "1e-3 s",
    "0x10",
]


def attempt(function, text):
    try:
        value = function(text)
    except Exception:
        return None
    return value


with open(here / "units.jsonl", "w") as f:
    for name, function, units in (("timedelta", parse_timedelta, TIMES), ("bytes", parse_bytes, BYTES)):
        for text in [n + u for n in NUMBERS for u in ["", *units, *(" " + u for u in units)]] + ODD:
            value = attempt(function, text)
            if name == "bytes" and isinstance(value, int) and value > 2**63:
                continue
            f.write(json.dumps([name, text, value]) + "\n")

LITERALS = (
    r"""
1|1.5|-2|+3|0x10|0b11|0o17|007|0|00|1_000|1__0|1e5|1E-3|.5|5.|1.e3|None|none|NULL|True|true|FALSE|nan|inf|abc|a b|1s|5 minutes|64MiB
'x'|"x"|'a\nb'|"a\tb"|'it\'s'|"""
    + '"""tri"""'
    + r"""|'a' 'b'|b'xy'|r'a\nb'|u'q'|'\x41'|'\u00e9'|'\q'|'open|"mixed'
[]|[1, 2]|[1,]|[,]|(1,)|(1)|()|(1, 'a', [None])|{}|{'a': 1}|{'a': {'b': [1, 2.5]}}|{1, 2}|{'a': 1,}|{1: 2}|{None: 1}|[1|1]|1, 2|1,|'a', 'b'
tcp://127.0.0.1:8786|tls://h:1|/a/b|a,b|a: 1|- 1|--1|+-1|1 + 2|[True, false]|x=1|*|"\u20ac"|é| 1|1 |' a '|lambda: 1|1j|1.2.3|10.0.0.1|1:2|9223372036854775807
"""
)

with open(here / "literals.jsonl", "w") as f:
    for text in LITERALS.strip("\n").replace("\n", "|").split("|"):
        value = config.interpret_value(text)
        if isinstance(value, complex):
            value = text
        if isinstance(value, bytes):
            value = value.decode()
        if isinstance(value, set):
            value = sorted(value)
        if isinstance(value, dict):
            value = {str(k): v for k, v in sorted(value.items(), key=str)}
        f.write(json.dumps([text, value], ensure_ascii=False) + "\n")

with open(here / "stock.json", "w") as f:
    stock = config.merge(*config.defaults)["distributed"]
    json.dump({"distributed": stock}, f, indent=1, sort_keys=True)
    f.write("\n")
