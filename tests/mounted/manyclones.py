# SPDX-License-Identifier: BSD-3-Clause
"""Clones of one file, each written in one place: manyclones.py DIR make|check|remove|sole COUNT SEED.

make: the clones; check: each holds what was written; remove: in random order, checking some of those left
on the way; sole: every block of the first file has one owner.
"""
import json
import os
import random
import subprocess
import sys

BLOCK = 4096
BLOCKS = 4096
where, what, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
source = where + "/source"


def place(i):
    """Where clone i is written: offset and bytes, often across an edge of blocks."""
    rng = random.Random(seed * 1000003 + i)
    data = rng.randbytes(rng.choice((1, 100, BLOCK, 3 * BLOCK + 5)))
    return rng.randrange(BLOCKS * BLOCK - len(data)), data


def name(i):
    return f"{where}/clones/{i}"


def make_source():
    """Many extents: the odd blocks come after the even ones."""
    fd = os.open(source, os.O_RDWR | os.O_CREAT, 0o644)
    for start in 0, 1:
        for i in range(start, BLOCKS, 2):
            os.pwrite(fd, b"%08d" % i * (BLOCK // 8), i * BLOCK)
    os.fsync(fd)
    os.close(fd)


def make():
    os.mkdir(where + "/clones")
    src = os.open(source, os.O_RDONLY)
    size = os.fstat(src).st_size
    for i in range(count):
        dst = os.open(name(i), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        assert os.copy_file_range(src, dst, size, 0, 0) == size
        off, data = place(i)
        assert os.pwrite(dst, data, off) == len(data)
        os.close(dst)


def check_one(i, original, whole):
    off, data = place(i)
    fd = os.open(name(i), os.O_RDONLY)
    if whole:
        start, end = 0, len(original)
    else:
        start, end = max(0, off - 9000), min(len(original), off + len(data) + 9000)
    want = bytearray(original)
    want[off : off + len(data)] = data
    if os.pread(fd, end - start, start) != want[start:end]:
        sys.exit(f"clone {i} is not what was written")
    os.close(fd)


def read_source():
    with open(source, "rb") as f:
        original = f.read()
    if original != b"".join(b"%08d" % i * (BLOCK // 8) for i in range(BLOCKS)):
        sys.exit("the source has changed")
    return original


def check():
    original = read_source()
    for i in range(count):
        check_one(i, original, i % 64 == 0)


def remove():
    rng = random.Random(seed)
    left = list(range(count))
    rng.shuffle(left)
    original = read_source()
    while left:
        os.unlink(name(left.pop()))
        if left and len(left) % 16 == 0:
            check_one(rng.choice(left), original, len(left) % 256 == 0)
    os.rmdir(where + "/clones")
    read_source()


def sole():
    out = subprocess.run(
        [os.environ["UMBRACTL"], "map", "--json", source], stdout=subprocess.PIPE, check=True
    ).stdout
    extents = json.loads(out)["extents"]
    many = [e for e in extents if e["refs"] != 1]
    if many or sum(e["length"] for e in extents) != BLOCKS * BLOCK:
        sys.exit(f"extents with other owners, or missing: {many[:3]} of {len(extents)}")


{"source": make_source, "make": make, "check": check, "remove": remove, "sole": sole}[what]()
