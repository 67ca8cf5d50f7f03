"""Writes the vectors that the protocol tests compare with: what stock dask and distributed say.

Usage: python make_vectors.py   (in an environment with dask and distributed; writes beside itself)

key_split.tsv      hex of the msgpack key, str(key), key_split(key), str(key_split_group(key))
messages.txt       a Python expression per line, its frames as hex, separated by spaces
versions.json      arguments and text of distributed.versions.error_message
pickles.txt        a Python expression per line and the hex of its pickle, in several protocols
"""

import json
import pathlib
import pickle

import msgpack
import numpy as np  # noqa: F401  (used by the expressions)
from dask.utils import key_split
from distributed import versions
from distributed.protocol import to_serialize  # noqa: F401
from distributed.protocol.core import dumps
from distributed.protocol.serialize import ToPickle  # noqa: F401
from distributed.utils import key_split_group

HERE = pathlib.Path(__file__).parent

# fmt: off
# ruff: noqa: E501
KEYS = [
    "x", "x-1", "x-1-2-3", ("x-2", 1), "('x-2', 1)", "('x', 1)", "hello-world-1", "hello-world", "ae05086432ca935f6eba409a8ecd4896",
    "<module.submodule.myclass object at 0xdaf372", "x-abcdefab", "x-database-1", "_(x)", "_(x)-y-1", "-x", "--", "1", "1-x", "1,2-x-y",
    "x--y", "x-y1-z", "x-é-1", "é-x", "日本-語", "('a-b-12ab', 0)", '("a-b", 0)', "(", "()", "(x", "<", "<>", "<a.b-c d>", "<a.B object>-x-1",
    "ABCDEF12345678901234567890123456", "ae05086432ca935f6eba409a8ecd489", "ae05086432ca935f6eba409a8ecd4896a", " x-y", "x y-z", "x-y z",
    "from_pandas-0123456789abcdef0123456789abcdef", "read_parquet-fused-mean-0a", "shuffle-transfer-0a1b", "inc-12345678-abcd-1234",
    "it's-1", 'say "hi"', "it's \"x\"", "tab\there", "nul\0", "\x7f\x80\xa0\xad", "\u200b\u2028", "emoji-😀", "back\\slash",
    ("x", 1.5), ("x", 1, "a"), (("x-1", 2), 3), ((), 1), (), ("x",), (1, "x-1"), (1.5, 2), 1, 0, -1, -33, 127, 128, 255, 256, 65535, 65536,
    2**32, 2**63, 2**64 - 1, -(2**63), -129, -32769, -(2**31) - 1, 0.5, -0.5, 1e22, 1e300, 1.5e-7, 0.0001, 0.00012345, 123456789.125,
    float("inf"), float("-inf"), "a" * 31, "a" * 32, "a" * 255, "a" * 256, ("x", "it's", 'q"', "é"), tuple(range(16)),
    ("x-0123456789abcdef0123456789abcdef", 3, 4), "x-aaaaaaaa", "x-aaaaaaag", "x-gaaaaaaa", "x-AAAAAAAA", "data-abcdefgh-1",
]

MESSAGES = [
    "'OK'",
    "{'op': 'identity', 'reply': True}",
    "{'compression': None, 'python': (3, 11, 7), 'pickle-protocol': 5}",
    "{'op': 'get_data', 'keys': {'x-1'}, 'who': 'tcp://10.0.0.1:1', 'reply': True}",
    "{'status': 'OK', 'data': {'x-1': to_serialize(2)}}",
    "{'data': to_serialize(b'abc'), 'e': to_serialize(bytearray(b'xyz'))}",
    "{'data': to_serialize(np.arange(10.0)), 'then': to_serialize({'a': 1})}",
    "{'big': to_serialize(np.zeros(300)), 'b2': to_serialize(np.ones(300)), 'c': to_serialize(b'x' * 5)}",
    "[{'op': 'a', 'code': ToPickle(())}, {'op': 'b', 'annotations': ToPickle({'priority': 1}), 'x': to_serialize([1, (2, 3)])}]",
    "{'code': ToPickle(np.arange(4.0)), 'n': None}",
    "{('x', 0): 1, 1: 2, 1.5: 3, None: 4, b'k': 5, True: 6}",
    "[0, 127, 128, 255, 256, 65535, 65536, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -1, -32, -33, -128, -129, -32769, -2**31 - 1, -2**63]",
    "[1.5, -0.0, 1e300, float('inf'), True, False, None, 'é', '', b'', b'\\x00' * 300, 'a' * 700]",
    "{'empty': to_serialize(b''), 'nested': {'s': {1}, 'm': {'a': ({}, [])}}}",
    "{'k': list(range(20)), 'm': {str(i): i for i in range(20)}}",
]

PICKLES = [
    "None", "True", "False", "()", "[]", "{}", "set()", "{1}", "frozenset([1, 'a'])", "{'priority': 10}", "{'workers': ('a', 'b'), 'retries': 3}",
    "[0, 255, 256, 65535, 65536, -1, 2**31, -2**31 - 1, 2**63 - 1, 2**63, 2**64 - 1, -2**63, 1.5]", "'é'", "b'abc'", "'x' * 300", "b'x' * 300",
    "(1,)", "(1, 2)", "(1, 2, 3)", "(1, 2, 3, 4)", "[[1], [1]]", "(lambda x: {'a': x, 'b': x})(['y', 'z'])", "{'collections': [{'type': 'x'}]}",
    "{('x', 0): {'resources': {'GPU': 1.0}}}", "2**70", "-2**70", "range(3)", "np.float64(1)", "(lambda x: (x.append(x), x)[1])([])",
    "KeyError('x')", "'\\ud800'", "list(range(2000))", "{i: str(i) for i in range(300)}", "object()", "bytearray(b'x')",
]


# fmt: on


def key_lines():
    for key in KEYS:
        try:
            group = key_split_group(key)
        except IndexError:
            group = "Other"
        try:
            prefix = key_split(key)
        except IndexError:
            prefix = "Other"
        texts = [str(key), prefix, str(group)]
        yield "\t".join([msgpack.packb(key).hex(), *(text.encode().hex() for text in texts)])


def message_lines():
    for text in MESSAGES:
        frames = dumps(eval(text), context={"compression": None})
        yield f"{text}\t{' '.join(bytes(f).hex() for f in frames)}"


def pickle_lines():
    for text in PICKLES:
        for protocol in (2, 4, 5):
            yield f"{text}\t{pickle.dumps(eval(text), protocol=protocol).hex()}"


def node(**packages):
    return {"host": {}, "packages": packages}


def version_cases():
    a = node(python="3.11.7.final.0", dask="2026.8.0", numpy="2.0", lz4=None)
    b = node(python="3.12.0.final.0", dask="2026.8.0", numpy="2.1", lz4="4.0")
    c = node(python="3.11.7.final.0", dask="2026.7.0", msgpack="1.0")
    cases = [
        (a, {}, a),
        (a, {"w": a}, a),
        (a, {}, b),
        (a, {"w": a, "v": a}, b),
        (b, {"w": a}, a),
        (a, {"w": c}, b),
        (c, {"w": b}, a),
        (a, {}, None),
        (None, {}, a),
        (a, {"w": None}, a),
        ({}, {"w": a}, c),
        (node(), {"w": node()}, node()),
    ]
    for scheduler, workers, source in cases:
        for name in ("Client", "tcp://127.0.0.1:1234"):
            text = versions.error_message(scheduler, workers, source, source_name=name)["warning"]
            yield {
                "scheduler": scheduler,
                "workers": list(workers.values()),
                "source": source,
                "name": name,
                "warning": text,
            }


if __name__ == "__main__":
    (HERE / "key_split.tsv").write_text("\n".join(key_lines()) + "\n")
    (HERE / "messages.txt").write_text("\n".join(message_lines()) + "\n")
    (HERE / "pickles.txt").write_text("\n".join(pickle_lines()) + "\n")
    (HERE / "versions.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in version_cases()) + "\n]\n")
