# SPDX-License-Identifier: BSD-3-Clause
"""Attempts to get at a file through the doors of a mount without the right to it: test_rights.py CASE DIR [ARG].

Ends with 0 when the attempt failed as it should.
"""
import array
import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
import threading
import time

FICLONE = 0x40049409
FIDEDUPERANGE = 0xC0189436
SECRET = b"secret" * 2000
USER = 65534


def ioc(direction, number, size):
    return direction << 30 | size << 16 | ord("U") << 8 | number


TOKEN, CLONE = ioc(2, 4, 16), ioc(3, 5, 56)


def fails(wanted, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        if e.errno in wanted:
            return
        sys.exit(f"{fn.__name__}{args}: {e}, not one of {[errno.errorcode[w] for w in wanted]}")
    sys.exit(f"{fn.__name__}{args} was allowed")


def token(fd):
    return fcntl.ioctl(fd, TOKEN, bytes(16))


def clone(fd, tok, op=2, length=0):
    return fcntl.ioctl(fd, CLONE, struct.pack("16sQQQIiQ", tok, 0, length, 0, op, 0, 0))


def make(path, data, mode=0o600):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)
    os.write(fd, data)
    return fd


def become_user():
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def tokens(where):
    """The ioctls that umbractl uses, by hand."""
    secret, mine, guard = where + "/secret", where + "/mine", where + "/guarded"
    os.close(make(secret, SECRET))
    os.close(make(guard, b"guarded"))
    own = make(mine, b"mine")
    os.fchown(own, USER, USER)
    write_only = os.open(secret, os.O_WRONLY)
    path_only = os.open(secret, os.O_PATH)
    read_only = os.open(guard, os.O_RDONLY)
    guard_path = os.open(guard, os.O_PATH)
    append = os.open(guard, os.O_WRONLY | os.O_APPEND)
    frozen = make(where + "/frozen", b"frozen")
    flags = struct.unpack("i", fcntl.ioctl(frozen, 0x80086601, bytes(8))[:4])[0]
    fcntl.ioctl(frozen, 0x40086602, struct.pack("q", flags | 0x10))
    become_user()
    fails({errno.EBADF}, token, write_only)
    fails({errno.EBADF}, token, path_only)
    fails({errno.EISDIR}, token, os.open(where, os.O_RDONLY))
    tok = token(own)
    for fd in read_only, guard_path, append:
        fails({errno.EBADF}, clone, fd, tok)
    tok = token(own)
    clone(frozen, tok)
    fails({errno.EPERM}, os.posix_fallocate, frozen, 3, 1)
    fails({errno.EPERM}, clone, read_only, token(own), 1)
    fails({errno.EACCES}, clone, own, bytes(16))
    fails({errno.EACCES}, clone, own, os.urandom(16))
    tok = token(own)
    fails({errno.EINVAL}, clone, own, tok, 7)
    other = os.open(where + "/other", os.O_RDWR | os.O_CREAT, 0o600)
    tok = token(own)
    clone(other, tok)
    fails({errno.EACCES}, clone, other, tok)
    os.posix_fallocate(other, 3, 1)  # which makes the clone
    if os.pread(other, 10, 0) != b"mine":
        sys.exit("a clone was not made")
    # Through /proc a descriptor is opened anew, with the file's permissions.
    fails({errno.EACCES}, os.open, f"/proc/self/fd/{path_only}", os.O_RDONLY)


def ioctls(where):
    """The same as a user under umbractl exec."""
    secret, guard = where + "/secret", where + "/guarded"
    own = os.open(where + "/mine", os.O_RDWR)
    other = os.open(where + "/other", os.O_RDWR | os.O_CREAT)
    write_only = os.open(secret, os.O_WRONLY)
    path_only = os.open(secret, os.O_PATH)
    read_only = os.open(guard, os.O_RDONLY)
    guard_path = os.open(guard, os.O_PATH)
    become_user()
    for src in write_only, path_only:
        fails({errno.EBADF}, fcntl.ioctl, own, FICLONE, src)
    for dst in read_only, guard_path:
        fails({errno.EBADF}, fcntl.ioctl, dst, FICLONE, own)
    if dedupe(other, read_only) != -errno.EPERM:
        sys.exit("dedupe into a file of somebody else's was allowed")


def dedupe(src, dst):
    """The status of a dedupe of the first byte."""
    arg = bytearray(struct.pack("QQHHI", 0, 1, 1, 0, 0) + struct.pack("qQQiI", dst, 0, 0, 0, 0))
    fcntl.ioctl(src, FIDEDUPERANGE, arg)
    return struct.unpack_from("i", arg, 24 + 24)[0]


def foreign(where):
    """In a pid namespace with another one's /proc, whose small numbers are root's threads."""
    src = os.open(where + "/guarded", os.O_RDONLY)
    dst = os.open(where + "/guarded2", os.O_RDONLY)
    become_user()
    status = dedupe(src, dst)
    if status != -errno.EPERM:
        sys.exit(f"dedupe into a file of somebody else's: status {status}")


def swap(where, pid):
    """A thread executes a program while the first thread's clone is under way; the program's descriptors are not ours."""
    os.close(make(where + "/swapped", b""))
    dst = os.open(where + "/swapped", os.O_RDWR)
    os.set_inheritable(dst, True)
    secret = make(where + "/secret", SECRET)
    ours, theirs = socket.socketpair()
    theirs.set_inheritable(True)
    daemon = int(pid)
    child = os.fork()
    if not child:
        ours.close()
        os.close(secret)
        program = (
            "import array, os, socket, sys, time\n"
            f"s = socket.socket(fileno={theirs.fileno()})\n"
            "_, anc, _, _ = s.recvmsg(1, 64)\n"
            "os.dup2(array.array('i', anc[0][2])[0], 99)\n"
            "s.send(b'x')\n"
            "time.sleep(3)\n"
        )

        def execute():
            time.sleep(0.5)
            os.execv(sys.executable, [sys.executable, "-c", program])

        threading.Thread(target=execute).start()
        fcntl.ioctl(dst, FICLONE, 99)
        os._exit(1)
    theirs.close()
    os.kill(daemon, 19)
    try:
        # Held up at the destination's attributes, the supervisor has yet to take descriptor 99.
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [secret]))])
        ours.settimeout(30)
        ours.recv(1)
    finally:
        os.kill(daemon, 18)
    time.sleep(1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    with open(where + "/swapped", "rb") as f:
        if f.read():
            sys.exit("a call got at the descriptor of a program executed after it")


def statfs(where):
    """Under --as-xfs the supervisor looks paths up: with the task's rights, and without touching what it finds."""
    libc = ctypes.CDLL(None, use_errno=True)
    buf = ctypes.create_string_buffer(256)
    fifo, shut = where + "/fifo", where + "/shut"
    os.mkfifo(fifo, 0o666)
    os.mkdir(shut, 0o700)
    os.close(make(shut + "/inside", b"x"))
    opened = threading.Event()

    def writer():
        os.close(os.open(fifo, os.O_WRONLY))
        opened.set()

    threading.Thread(target=writer, daemon=True).start()
    time.sleep(0.3)
    libc.statfs(fifo.encode(), buf)
    if opened.wait(0.5):
        sys.exit("statfs of a fifo opened it")
    child = os.fork()
    if not child:
        become_user()
        ok = libc.statfs((shut + "/inside").encode(), buf) < 0 and ctypes.get_errno() == errno.EACCES
        os._exit(0 if ok else 1)
    if os.waitpid(child, 0)[1]:
        sys.exit("statfs found a path below a directory that the user may not search")
    os._exit(0)


globals()[sys.argv[1]](*sys.argv[2:])
