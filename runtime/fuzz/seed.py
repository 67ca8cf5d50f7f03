"""Turns the vectors of stock Dask into first inputs for the fuzz targets. Usage: seed.py CORPUS_FOLDER"""

import hashlib
import pathlib
import struct
import sys

DATA = pathlib.Path(__file__).parent.parent / "tests" / "data"
CORPUS = pathlib.Path(sys.argv[1])


def put(target: str, data: bytes) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


for line in (DATA / "messages.txt").read_text().splitlines():
    frames = [bytes.fromhex(field) for field in line.split("\t")[1].split(" ")]
    lens = [len(frame) for frame in frames]
    total = 8 * (1 + len(frames)) + sum(lens)
    wire = struct.pack(f"<{2 + len(frames)}Q", total, len(frames), *lens) + b"".join(frames)
    put("frames", b"\x05" + wire + wire)
    if len(frames) <= 8 and max(lens) < 1 << 16:
        put("message", struct.pack(f"<B{len(frames)}H", len(frames), *lens) + b"".join(frames))
    put("handshake", frames[0])
for line in (DATA / "pickles.txt").read_text().splitlines():
    put("pickle", bytes.fromhex(line.split("\t")[1]))
for line in (DATA / "key_split.tsv").read_text().splitlines():
    put("key", bytes.fromhex(line.split("\t")[0]))
