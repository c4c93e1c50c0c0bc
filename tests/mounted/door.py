# SPDX-License-Identifier: BSD-3-Clause
"""The ioctls by which umbractl clones (src/fuse/ioctl.h), and what fuse/clone.h does with them."""
import errno
import fcntl
import os
import struct
import time

RANGE, FORMAT = 2, "16sQQQIiQ"


def number(direction, nr, size):
    return direction << 30 | size << 16 | ord("U") << 8 | nr


def ask(src, dst, length=0, at=0):
    """The ioctls alone: (armed, bytes)."""
    token = fcntl.ioctl(src, number(2, 4, 16), bytes(16))
    answer = fcntl.ioctl(dst, number(3, 5, 56), struct.pack(FORMAT, token, 0, length, at, RANGE, 0, 0))
    return struct.unpack(FORMAT, answer)[5:]


def clone(src, dst, length=0, at=0):
    while True:
        try:
            armed, done = ask(src, dst, length, at)
            break
        except OSError as e:
            if e.errno != errno.EBUSY:  # another thread's
                raise
            time.sleep(0.001)
    if armed:
        os.posix_fallocate(dst, at + done - 1, 1)
