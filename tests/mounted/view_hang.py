#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Provokes the hang that the guardian is there for: a thread of the server waits in the kernel for a page that
its hidden mount's threads, stopped here like by chance, were to bring; then the server is killed.

    view_hang.py MOUNTPOINT PID      all users of the mount must be back within a few seconds
"""
import ctypes
import os
import signal
import sys
import threading
import time

import door

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def freeze(pid):
    """Stops the threads of the hidden mount."""
    stopped = 0
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/comm") as f:
            if f.read().strip() != "umbrafs-view":
                continue
        if libc.ptrace(PTRACE_SEIZE, int(tid), None, None) or libc.ptrace(PTRACE_INTERRUPT, int(tid), None, None):
            sys.exit(f"view_hang: ptrace: {os.strerror(ctypes.get_errno())}")
        stopped += 1
    return stopped


def user(work, ended):
    try:
        work()
    except OSError:
        pass
    ended.append(1)


def main():
    mnt, pid = sys.argv[1], int(sys.argv[2])
    path = os.path.join(mnt, "hang")
    src = os.open(os.path.join(mnt, "hang.src"), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.write(src, b"a" * (1 << 20))
    dst = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    door.clone(src, dst)
    os.close(dst)
    time.sleep(0.3)
    reader = os.open(path, os.O_RDONLY)  # a view
    writer = os.open(path, os.O_RDWR)    # which is bound
    if not freeze(pid):
        sys.exit("view_hang: no threads of a hidden mount")
    ended = []
    threads = [threading.Thread(target=user, args=(lambda: os.pread(reader, 4096, 0), ended)),
               threading.Thread(target=user, args=(lambda: door.clone(src, writer), ended))]
    for thread in threads:
        thread.daemon = True
        thread.start()
        time.sleep(0.5)
    states = []
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/stat") as f:
            states.append(f.read().rpartition(")")[2].split()[0])
    print("waiting in the kernel:", states.count("D"), "threads; users back before the kill:", len(ended))
    start = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    while len(ended) < len(threads) and time.monotonic() - start < 20:
        time.sleep(0.01)
    print(f"{len(ended)} users back after {time.monotonic() - start:.2f} s")
    sys.stdout.flush()
    os._exit(0 if len(ended) == len(threads) and time.monotonic() - start < 5 else 1)


if __name__ == "__main__":
    main()
