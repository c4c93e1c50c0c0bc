#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""sqlite_load run DB LOG MODE: transactions on a database until the filesystem is gone; the number of
the last one that was acknowledged is kept in LOG, on another filesystem.
sqlite_load check DB LOG: the database is sound and holds every acknowledged transaction."""
import os
import sqlite3
import struct
import sys


def connect(db, mode):
    c = sqlite3.connect(db, isolation_level=None, timeout=10)
    c.execute(f"pragma journal_mode={mode}")
    c.execute("pragma synchronous=full")
    c.execute("create table if not exists t(n integer primary key, a text, b blob)")
    c.execute("create index if not exists ta on t(a)")
    c.execute("create table if not exists sums(k integer primary key, v integer)")
    c.execute("insert or ignore into sums values(0, 0)")
    return c


def run(db, log, mode):
    fd = os.open(log, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        c = connect(db, mode)
        n = c.execute("select coalesce(max(n), 0) from t").fetchone()[0]
        while True:
            n += 1
            c.execute("begin immediate")
            c.execute(
                "insert into t values(?, ?, ?)",
                (n, f"row {n * 7919 % 100003}", bytes([n % 251]) * (n * 37 % 5000)),
            )
            c.execute("update sums set v = v + ?", (n,))
            if n % 5 == 0:
                c.execute("update t set b = ? where n = ?", (b"", n // 2))
            if n % 7 == 0:
                c.execute("delete from t where n = ?", (n // 3,))
            c.execute("commit")
            os.pwrite(fd, struct.pack("q", n), 0)
    except (sqlite3.Error, OSError):
        os._exit(0)


def check(db, log):
    with open(log, "rb") as f:
        data = f.read(8)
    acked = struct.unpack("q", data)[0] if len(data) == 8 else 0
    c = sqlite3.connect(db, timeout=10)
    verdict = c.execute("pragma integrity_check").fetchone()[0]
    if verdict != "ok":
        sys.exit(f"FAIL: integrity_check: {verdict}")
    last = c.execute("select coalesce(max(n), 0) from t").fetchone()[0]
    total = c.execute("select v from sums").fetchone()[0]
    if last < acked or last > acked + 1:
        sys.exit(f"FAIL: the last transaction is {last}, acknowledged was {acked}")
    if total != last * (last + 1) // 2:
        sys.exit(f"FAIL: the sum {total} does not fit {last} transactions")
    print(f"{acked} transactions acknowledged, {last} there")


if sys.argv[1] == "run":
    run(sys.argv[2], sys.argv[3], sys.argv[4])
else:
    check(sys.argv[2], sys.argv[3])
