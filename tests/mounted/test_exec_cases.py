#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""
The remap ioctls and FIEMAP, case by case: test_exec_cases.py DIR [OTHER_DIR].

Prints one line for each case: its name and what came of it. On XFS the lines are the reference (kept
in test_exec_cases.expected); on umbrafs under umbractl exec they must be the same ones.
"""
import array
import ctypes
import errno
import fcntl
import os
import resource
import signal
import stat
import struct
import sys

FICLONE, FICLONERANGE, FIDEDUPERANGE, FIEMAP = 0x40049409, 0x4020940D, 0xC0189436, 0xC020660B
GETFLAGS, SETFLAGS, IMMUTABLE = 0x80086601, 0x40086602, 0x10
B = 4096
libc = ctypes.CDLL(None, use_errno=True)
nobody = 65534
work = None


def ioctl(fd, cmd, arg):
    """arg: int or a ctypes buffer. 'ok' or the error's name."""
    ctypes.set_errno(0)
    r = libc.ioctl(ctypes.c_int(fd), ctypes.c_ulong(cmd),
                   ctypes.c_ulong(arg) if isinstance(arg, int) else arg)
    return "ok" if r == 0 else (errno.errorcode.get(ctypes.get_errno(), "?") if r < 0 else "r%d" % r)


def clone(dst, src):
    return ioctl(dst, FICLONE, src)


def clone_range(dst, src, soff, length, doff):
    return ioctl(dst, FICLONERANGE, ctypes.create_string_buffer(struct.pack("=qQQQ", src, soff, length, doff), 32))


def dedupe(src, off, length, dests, count=None, res1=0, res2=0, res=0):
    data = struct.pack("=QQHHI", off, length, len(dests) if count is None else count, res1, res2)
    for fd, doff in dests:
        data += struct.pack("=qQQiI", fd, doff, 77, 88, res)
    buf = ctypes.create_string_buffer(data, len(data))
    r = ioctl(src, FIDEDUPERANGE, buf)
    out = []
    for i in range(len(dests)):
        _, _, done, status, _ = struct.unpack_from("=qQQiI", buf.raw, 24 + 32 * i)
        out.append("%d/%s" % (done, errno.errorcode.get(-status, status) if status < 0 else status))
    return r + " " + " ".join(out)


def fiemap(fd, start=0, length=2**64 - 1, flags=0, count=16):
    buf = ctypes.create_string_buffer(struct.pack("=QQIIII", start, length, flags, 99, count, 0), 32 + 56 * max(count, 1))
    r = ioctl(fd, FIEMAP, buf)
    _, _, fl, mapped, _, _ = struct.unpack_from("=QQIIII", buf.raw, 0)
    ext = []
    for i in range(min(mapped, count) if r == "ok" else 0):
        lo, ph, ln, _, _, ef = struct.unpack_from("=QQQQQI", buf.raw, 32 + 56 * i)
        ext.append((lo, ph, ln, ef))
    return r, fl, mapped, ext


def path(name):
    return os.path.join(work, name)


def make(name, data, mode=0o644):
    fd = os.open(path(name), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)
    if data:
        os.pwrite(fd, data, 0)
    os.fchmod(fd, mode)
    return fd


def content(fd):
    size = os.fstat(fd).st_size
    return os.pread(fd, size + 1, 0)


def pat(c, n):
    return bytes([ord(c)]) * n


def digest(data):
    """Runs of equal bytes: a*4096,b*10."""
    out, i = [], 0
    while i < len(data):
        j = i
        while j < len(data) and data[j] == data[i]:
            j += 1
        out.append("%s*%d" % (chr(data[i]) if data[i] else "0", j - i))
        i = j
    return ",".join(out) or "empty"


cases = []


def case(fn):
    cases.append(fn)
    return fn


# ---- FICLONE ------------------------------------------------------------------------------------


@case
def clone_whole():
    a, b = make("a", pat("a", 3 * B + 7)), make("b", b"")
    r = clone(b, a)
    return r, digest(content(b)), fiemap(b)[3][0][3] & 0x2000 != 0


@case
def clone_write_after_leaves_source():
    a, b = make("a", pat("a", 3 * B)), make("b", b"")
    r = clone(b, a)
    os.pwrite(b, b"x", B)
    return r, digest(content(a)), digest(content(b))


@case
def clone_empty_onto_empty():
    return clone(make("b", b""), make("a", b""))


@case
def clone_empty_onto_full():
    b = make("b", pat("b", B))
    return clone(b, make("a", b"")), digest(content(b))


@case
def clone_small():
    a, b = make("a", b"aaaaa"), make("b", b"")
    return clone(b, a), digest(content(b))


@case
def clone_onto_longer_unaligned():
    b = make("b", pat("b", 3 * B))
    return clone(b, make("a", pat("a", B + 5))), digest(content(b))


@case
def clone_onto_longer_aligned():
    b = make("b", pat("b", 3 * B + 9))
    return clone(b, make("a", pat("a", B))), digest(content(b))


@case
def clone_onto_shorter():
    b = make("b", pat("b", 5))
    return clone(b, make("a", pat("a", 2 * B + 5))), digest(content(b))


@case
def clone_same_length():
    b = make("b", pat("b", B + 5))
    return clone(b, make("a", pat("a", B + 5))), digest(content(b))


@case
def clone_itself():
    a = make("a", pat("a", B))
    return clone(a, a)


@case
def clone_itself_empty():
    a = make("a", b"")
    return clone(a, a)


@case
def clone_sparse():
    a, b = make("a", b""), make("b", b"")
    os.ftruncate(a, 10 * B)
    os.pwrite(a, pat("a", B), 4 * B)
    return clone(b, a), digest(content(b))


@case
def clone_hole_only():
    a, b = make("a", b""), make("b", pat("b", B))
    os.ftruncate(a, 3 * B + 1)
    return clone(b, a), digest(content(b))


@case
def clone_updates_mtime():
    a, b = make("a", pat("a", B)), make("b", b"")
    os.utime(path("b"), (1, 1))
    return clone(b, a), os.stat(path("b")).st_mtime > 1000


@case
def clone_keeps_source_mtime():
    a, b = make("a", pat("a", B)), make("b", b"")
    os.utime(path("a"), (1, 1))
    return clone(b, a), os.stat(path("a")).st_mtime == 1


@case
def clone_cached_destination_pages():
    import mmap
    a, b = make("a", pat("a", 2 * B)), make("b", pat("b", 2 * B))
    m = mmap.mmap(b, 2 * B, mmap.MAP_SHARED)
    seen = digest(m[:])
    r = clone(b, a)
    return r, seen, digest(m[:])


@case
def clone_dirty_mapped_source():
    import mmap
    a, b = make("a", pat("a", 2 * B)), make("b", b"")
    m = mmap.mmap(a, 2 * B, mmap.MAP_SHARED)
    m[B:B + 4] = b"zzzz"
    return clone(b, a), digest(content(b))


@case
def clone_dirty_mapped_destination():
    import mmap
    a, b = make("a", pat("a", 2 * B)), make("b", pat("b", 2 * B))
    m = mmap.mmap(b, 2 * B, mmap.MAP_SHARED)
    m[B:B + 4] = b"zzzz"
    r = clone(b, a)
    return r, digest(m[:]), digest(content(b))


@case
def clone_then_map_both_and_write():
    import mmap
    a, b = make("a", pat("a", 2 * B)), make("b", b"")
    r = clone(b, a)
    m, n = mmap.mmap(a, 2 * B, mmap.MAP_SHARED), mmap.mmap(b, 2 * B, mmap.MAP_SHARED)
    m[0:1] = b"x"
    n[0:1] = b"y"
    m.flush()
    n.flush()
    return r, digest(content(a)), digest(content(b))


@case
def clone_bad_source():
    return clone(make("b", b""), 999)


@case
def clone_minus_one():
    return clone(make("b", b""), 0xFFFFFFFF)


@case
def clone_bad_destination():
    return clone(999, make("a", pat("a", B)))


@case
def clone_high_bits_of_source():
    a, b = make("a", pat("a", B)), make("b", b"")
    return clone(b, a | 5 << 32)


@case
def clone_source_write_only():
    make("a", pat("a", B))
    return clone(make("b", b""), os.open(path("a"), os.O_WRONLY))


@case
def clone_destination_read_only():
    make("b", b"")
    return clone(os.open(path("b"), os.O_RDONLY), make("a", pat("a", B)))


@case
def clone_destination_write_only():
    b, a = make("b", b""), make("a", pat("a", B))
    return clone(os.open(path("b"), os.O_WRONLY), a), digest(content(b))


@case
def clone_destination_append():
    make("b", b"")
    return clone(os.open(path("b"), os.O_RDWR | os.O_APPEND), make("a", pat("a", B)))


@case
def clone_source_append():
    make("a", pat("a", B))
    return clone(make("b", b""), os.open(path("a"), os.O_RDWR | os.O_APPEND))


@case
def clone_source_path_fd():
    make("a", pat("a", B))
    return clone(make("b", b""), os.open(path("a"), os.O_PATH))


@case
def clone_destination_path_fd():
    make("b", b"")
    return clone(os.open(path("b"), os.O_PATH), make("a", pat("a", B)))


@case
def clone_source_directory():
    return clone(make("b", b""), os.open(work, os.O_RDONLY))


@case
def clone_destination_directory():
    return clone(os.open(work, os.O_RDONLY), make("a", pat("a", B)))


@case
def clone_both_directories():
    d = os.open(work, os.O_RDONLY)
    return clone(d, d)


@case
def clone_source_fifo():
    os.mkfifo(path("f"))
    return clone(make("b", b""), os.open(path("f"), os.O_RDWR))


@case
def clone_destination_fifo():
    os.mkfifo(path("f"))
    return clone(os.open(path("f"), os.O_RDWR), make("a", pat("a", B)))


@case
def clone_source_device():
    return clone(make("b", b""), os.open("/dev/zero", os.O_RDWR))


@case
def clone_destination_device():
    return clone(os.open("/dev/null", os.O_RDWR), make("a", pat("a", B)))


@case
def clone_source_pipe():
    r, w = os.pipe()
    return clone(make("b", b""), r)


@case
def clone_source_elsewhere():
    import tempfile
    with tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as f:
        f.write(pat("a", B))
        f.flush()
        return clone(make("b", b""), f.fileno())


@case
def clone_destination_elsewhere():
    import tempfile
    with tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as f:
        return clone(f.fileno(), make("a", pat("a", B)))


@case
def clone_immutable_destination():
    a, b = make("a", pat("a", B)), make("b", b"")
    set_flags(b, IMMUTABLE)
    r = clone(b, a)
    set_flags(b, 0)
    return r


@case
def clone_immutable_source():
    a, b = make("a", pat("a", B)), make("b", b"")
    set_flags(a, IMMUTABLE)
    r = clone(b, a)
    set_flags(a, 0)
    return r


@case
def clone_immutable_destination_hides_misalignment():
    a, b = make("a", pat("a", 2 * B)), make("b", b"")
    set_flags(b, IMMUTABLE)
    r = clone_range(b, a, 1, B, 0)
    set_flags(b, 0)
    return r


@case
def clone_unlinked_files():
    a, b = make("a", pat("a", B)), make("b", b"")
    os.unlink(path("a"))
    os.unlink(path("b"))
    return clone(b, a), digest(content(b))


@case
def clone_drops_set_ids_for_user():
    a, b = make("a", pat("a", B), 0o644), make("b", b"")
    os.fchown(b, nobody, nobody)
    os.fchmod(b, 0o6777)
    r = as_user(lambda: clone(os.open(path("b"), os.O_RDWR), os.open(path("a"), os.O_RDONLY)))
    return r, oct(stat.S_IMODE(os.fstat(b).st_mode))


@case
def clone_keeps_set_ids_for_root():
    a, b = make("a", pat("a", B)), make("b", b"")
    os.fchmod(b, 0o6777)
    return clone(b, a), oct(stat.S_IMODE(os.fstat(b).st_mode))


@case
def clone_drops_file_capabilities():
    a, b = make("a", pat("a", B)), make("b", b"")
    try:
        os.setxattr(path("b"), "security.capability", bytes.fromhex("0000000200040000000000000000000000000000"))
    except OSError as e:
        return "setxattr " + errno.errorcode[e.errno]
    r = clone(b, a)
    return r, "security.capability" in os.listxattr(path("b"))


@case
def clone_by_user_from_descriptor_passed():
    """Who may read and write the files does not matter any more: the descriptors' modes do."""
    a, b = make("a", pat("a", B), 0o600), make("b", b"", 0o600)
    return as_user(lambda: clone(b, a))


@case
def clone_over_size_limit():
    return with_limit(2 * B, lambda: clone(make("b", b""), make2("a", pat("a", 4 * B))))


@case
def clone_beyond_size_limit():
    a, b = make("a", pat("a", 4 * B)), make("b", b"")
    return with_limit(2 * B, lambda: clone_range(b, a, 0, B, 2 * B))


@case
def clone_within_size_limit():
    a, b = make("a", pat("a", 4 * B)), make("b", b"")
    return with_limit(2 * B, lambda: clone_range(b, a, 0, B, B))


# ---- FICLONERANGE ---------------------------------------------------------------------------------


@case
def range_middle():
    a, b = make("a", pat("a", 2 * B) + pat("c", 2 * B)), make("b", pat("b", 4 * B))
    return clone_range(b, a, B, 2 * B, B), digest(content(b))


@case
def range_to_end_by_zero():
    a, b = make("a", pat("a", 2 * B) + pat("c", B + 9)), make("b", pat("b", B))
    return clone_range(b, a, B, 0, B), digest(content(b))


@case
def range_to_end_exact():
    a, b = make("a", pat("a", 2 * B) + pat("c", 9)), make("b", b"")
    return clone_range(b, a, B, B + 9, 3 * B), digest(content(b))


@case
def range_beyond_end():
    return clone_range(make("b", b""), make("a", pat("a", 2 * B)), B, 2 * B, 0)


@case
def range_from_end():
    return clone_range(make("b", b""), make("a", pat("a", 2 * B)), 2 * B, B, 0)


@case
def range_from_end_by_zero():
    return clone_range(make("b", b""), make("a", pat("a", 2 * B)), 2 * B, 0, 0)


@case
def range_from_behind_end_by_zero():
    return clone_range(make("b", b""), make("a", pat("a", 2 * B)), 3 * B, 0, 0)


@case
def range_source_offset_unaligned():
    return clone_range(make("b", b""), make("a", pat("a", 2 * B)), 512, B, 0)


@case
def range_destination_offset_unaligned():
    return clone_range(make("b", b""), make("a", pat("a", 2 * B)), 0, B, 512)


@case
def range_length_unaligned_inside():
    return clone_range(make("b", b""), make("a", pat("a", 2 * B)), 0, 100, 0)


@case
def range_tail_into_middle():
    return clone_range(make("b", pat("b", 4 * B)), make("a", pat("a", B + 9)), B, 9, B)


@case
def range_tail_at_end():
    b = make("b", pat("b", B + 9))
    return clone_range(b, make("a", pat("a", B + 9)), B, 9, B), digest(content(b))


@case
def range_tail_over_shorter_end():
    b = make("b", pat("b", B + 3))
    return clone_range(b, make("a", pat("a", B + 9)), B, 9, B), digest(content(b))


@case
def range_tail_over_longer_end():
    b = make("b", pat("b", B + 30))
    return clone_range(b, make("a", pat("a", B + 9)), B, 9, B), digest(content(b))


@case
def range_overlap():
    a = make("a", pat("a", 4 * B))
    return clone_range(a, a, 0, 2 * B, B)


@case
def range_same_file_adjacent():
    a = make("a", pat("a", B) + pat("b", B))
    return clone_range(a, a, 0, B, B), digest(content(a))


@case
def range_same_file_tail_rounds_into_overlap():
    a = make("a", pat("a", 3 * B + 5))
    return clone_range(a, a, 2 * B, B + 5, 3 * B)


@case
def range_destination_far_out():
    a, b = make("a", pat("a", B)), make("b", b"")
    return clone_range(b, a, 0, B, 1 << 40), os.fstat(b).st_size


@case
def range_at_largest_offset():
    a, b = make("a", pat("a", B)), make("b", b"")
    return clone_range(b, a, 0, B, (1 << 63) - B)


@case
def range_at_last_whole_block():
    a, b = make("a", pat("a", B)), make("b", b"")
    return clone_range(b, a, 0, B, (1 << 63) - 2 * B), os.fstat(b).st_size


@case
def range_negative_offsets():
    a, b = make("a", pat("a", B)), make("b", b"")
    return (clone_range(b, a, 1 << 63, B, 0), clone_range(b, a, 0, B, 1 << 63), clone_range(b, a, 0, 1 << 63, 0))


@case
def range_wrapping():
    a, b = make("a", pat("a", B)), make("b", b"")
    return clone_range(b, a, (1 << 63) - B, 2 * B, 0), clone_range(b, a, 0, 2 * B, (1 << 63) - B)


@case
def range_bad_pointer():
    return ioctl(make("b", b""), FICLONERANGE, 8)


@case
def range_bad_source():
    return clone_range(make("b", b""), 999, 0, 0, 0)


@case
def range_unwritten():
    a, b = make("a", b""), make("b", b"")
    os.posix_fallocate(a, 0, 4 * B)
    return clone_range(b, a, 0, 4 * B, 0), digest(content(b))


# ---- FIDEDUPERANGE ----------------------------------------------------------------------------------


@case
def dedupe_same():
    a, b = make("a", pat("a", 4 * B)), make("b", pat("a", 4 * B))
    return dedupe(a, 0, 4 * B, [(b, 0)]), fiemap(b)[3][0][3] & 0x2000 != 0


@case
def dedupe_differs():
    return dedupe(make("a", pat("a", 4 * B)), 0, 4 * B, [(make("b", pat("a", 3 * B) + pat("b", B)), 0)])


@case
def dedupe_part():
    return dedupe(make("a", pat("a", 4 * B)), B, B, [(make("b", pat("a", 3 * B) + pat("b", B)), 2 * B)])


@case
def dedupe_many():
    a = make("a", pat("a", 2 * B))
    return dedupe(a, 0, 2 * B, [(make("b", pat("a", 2 * B)), 0), (make("c", pat("c", 2 * B)), 0), (999, 0),
                                (make("d", pat("a", 3 * B)), 1), (make("e", pat("a", 4 * B)), 2 * B), (a, 0)])


@case
def dedupe_tail_both_ends():
    a, b = make("a", pat("a", B + 5)), make("b", pat("a", B + 5))
    return dedupe(a, 0, B + 5, [(b, 0)])


@case
def dedupe_tail_into_longer():
    a, b = make("a", pat("a", B + 5)), make("b", pat("a", B + 50))
    return dedupe(a, 0, B + 5, [(b, 0)])


@case
def dedupe_tail_only_into_longer():
    a, b = make("a", pat("a", B + 5)), make("b", pat("a", B + 50))
    return dedupe(a, B, 5, [(b, B)])


@case
def dedupe_length_unaligned_inside():
    a, b = make("a", pat("a", 4 * B)), make("b", pat("a", 4 * B))
    return dedupe(a, 0, B + 100, [(b, 0)])


@case
def dedupe_zero_length():
    a, b = make("a", pat("a", B)), make("b", pat("b", B))
    return dedupe(a, 0, 0, [(b, 0)])


@case
def dedupe_beyond_source():
    return dedupe(make("a", pat("a", B)), 0, 2 * B, [(make("b", pat("a", 2 * B)), 0)])


@case
def dedupe_beyond_destination():
    return dedupe(make("a", pat("a", 2 * B)), 0, 2 * B, [(make("b", pat("a", B)), 0)])


@case
def dedupe_unaligned():
    a, b = make("a", pat("a", 2 * B)), make("b", pat("a", 2 * B))
    return dedupe(a, 1, B, [(b, 0)]), dedupe(a, 0, B, [(b, 1)])


@case
def dedupe_overlap():
    a = make("a", pat("a", 4 * B))
    return dedupe(a, 0, 2 * B, [(a, B)])


@case
def dedupe_same_file():
    a = make("a", pat("a", 4 * B))
    return dedupe(a, 0, B, [(a, 2 * B)])


@case
def dedupe_no_destination():
    return dedupe(make("a", pat("a", B)), 0, B, [])


@case
def dedupe_reserved():
    a, b = make("a", pat("a", B)), make("b", pat("a", B))
    return dedupe(a, 0, B, [(b, 0)], res1=1), dedupe(a, 0, B, [(b, 0)], res2=1), dedupe(a, 0, B, [(b, 0)], res=1)


@case
def dedupe_too_many():
    a, b = make("a", pat("a", B)), make("b", pat("a", B))
    return dedupe(a, 0, B, [(b, 0)] * 127).split()[0], dedupe(a, 0, B, [(b, 0)] * 128).split()[0]


@case
def dedupe_bad_pointer():
    return ioctl(make("a", pat("a", B)), FIDEDUPERANGE, 8)


@case
def dedupe_result_in_read_only_memory():
    import mmap
    a, b = make("a", pat("a", B)), make("b", pat("a", B))
    with open(path("args"), "wb+") as f:
        f.write(struct.pack("=QQHHIqQQiI", 0, B, 1, 0, 0, b, 0, 0, 0, 0).ljust(4096, b"\0"))
        f.flush()
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        p = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_PRIVATE, f.fileno(), 0)
        return ioctl(a, FIDEDUPERANGE, p)


@case
def dedupe_source_write_only():
    make("a", pat("a", B))
    return dedupe(os.open(path("a"), os.O_WRONLY), 0, B, [(make("b", pat("a", B)), 0)])


@case
def dedupe_source_directory():
    return dedupe(os.open(work, os.O_RDONLY), 0, B, [(make("b", pat("a", B)), 0)])


@case
def dedupe_source_fifo():
    os.mkfifo(path("f"))
    return dedupe(os.open(path("f"), os.O_RDWR), 0, B, [(make("b", pat("a", B)), 0)])


@case
def dedupe_destination_directory():
    return dedupe(make("a", pat("a", B)), 0, B, [(os.open(work, os.O_RDONLY), 0)])


@case
def dedupe_destination_device():
    return dedupe(make("a", pat("a", B)), 0, B, [(os.open("/dev/null", os.O_RDWR), 0)])


@case
def dedupe_destination_fifo():
    os.mkfifo(path("f"))
    return dedupe(make("a", pat("a", B)), 0, B, [(os.open(path("f"), os.O_RDWR), 0)])


@case
def dedupe_destination_append():
    make("b", pat("a", B))
    return dedupe(make("a", pat("a", B)), 0, B, [(os.open(path("b"), os.O_RDWR | os.O_APPEND), 0)])


@case
def dedupe_destination_path_fd():
    make("b", pat("a", B))
    return dedupe(make("a", pat("a", B)), 0, B, [(os.open(path("b"), os.O_PATH), 0)])


@case
def dedupe_destination_read_only_by_root():
    make("b", pat("a", B))
    return dedupe(make("a", pat("a", B)), 0, B, [(os.open(path("b"), os.O_RDONLY), 0)])


@case
def dedupe_destination_read_only_by_owner():
    b = make("b", pat("a", B), 0o444)
    os.fchown(b, nobody, nobody)
    a = make("a", pat("a", B))
    return as_user(lambda: dedupe(a, 0, B, [(os.open(path("b"), os.O_RDONLY), 0)]))


@case
def dedupe_destination_read_only_by_writer():
    make("b", pat("a", B), 0o666)
    a = make("a", pat("a", B))
    return as_user(lambda: dedupe(a, 0, B, [(os.open(path("b"), os.O_RDONLY), 0)]))


@case
def dedupe_destination_read_only_by_group():
    b = make("b", pat("a", B), 0o664)
    os.fchown(b, 0, 1234)
    a = make("a", pat("a", B))
    return (as_user(lambda: dedupe(a, 0, B, [(os.open(path("b"), os.O_RDONLY), 0)])),
            as_user(lambda: dedupe(a, 0, B, [(os.open(path("b"), os.O_RDONLY), 0)]), groups=[1, 1234]))


@case
def dedupe_destination_read_only_by_other():
    make("b", pat("a", B), 0o644)
    a = make("a", pat("a", B))
    return as_user(lambda: dedupe(a, 0, B, [(os.open(path("b"), os.O_RDONLY), 0)]))


@case
def dedupe_destination_read_only_by_other_directory():
    a = make("a", pat("a", B))
    return as_user(lambda: dedupe(a, 0, B, [(os.open("/", os.O_RDONLY), 0)]))


@case
def dedupe_destination_elsewhere():
    import tempfile
    with tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as f:
        f.write(pat("a", B))
        f.flush()
        return dedupe(make("a", pat("a", B)), 0, B, [(f.fileno(), 0)])


@case
def dedupe_immutable_destination():
    a, b = make("a", pat("a", B)), make("b", pat("a", B))
    set_flags(b, IMMUTABLE)
    r = dedupe(a, 0, B, [(b, 0)])
    set_flags(b, 0)
    return r


@case
def dedupe_keeps_mtime():
    a, b = make("a", pat("a", B)), make("b", pat("a", B))
    os.utime(path("b"), (1, 1))
    return dedupe(a, 0, B, [(b, 0)]), os.stat(path("b")).st_mtime


@case
def dedupe_keeps_set_ids():
    a, b = make("a", pat("a", B)), make("b", pat("a", B))
    os.fchown(b, nobody, nobody)
    os.fchmod(b, 0o6777)
    r = as_user(lambda: dedupe(a, 0, B, [(os.open(path("b"), os.O_RDWR), 0)]))
    return r, oct(stat.S_IMODE(os.fstat(b).st_mode))


@case
def dedupe_dirty_mapped():
    import mmap
    a, b = make("a", pat("a", B)), make("b", pat("b", B))
    m = mmap.mmap(b, B, mmap.MAP_SHARED)
    m[:] = pat("a", B)
    return dedupe(a, 0, B, [(b, 0)])


@case
def dedupe_negative():
    a, b = make("a", pat("a", B)), make("b", pat("a", B))
    return dedupe(a, 1 << 63, B, [(b, 0)]), dedupe(a, 0, 1 << 63, [(b, 0)]), dedupe(a, 0, B, [(b, 1 << 63)])


@case
def dedupe_over_size_limit():
    a, b = make("a", pat("a", 4 * B)), make("b", pat("a", 4 * B))
    return with_limit(2 * B, lambda: dedupe(a, 0, 4 * B, [(b, 0)])), with_limit(2 * B, lambda: dedupe(a, 0, B, [(b, 2 * B)]))


# ---- FIEMAP -------------------------------------------------------------------------------------------

SHARED, UNWRITTEN, LAST = 0x2000, 0x800, 1


def shape(result):
    r, fl, mapped, ext = result
    return r, hex(fl), mapped, [(lo // B, ln // B, "".join(n for n, f in (("S", SHARED), ("U", UNWRITTEN), ("L", LAST)) if ef & f))
                                for lo, _, ln, ef in ext]


@case
def fiemap_one():
    a = make("a", pat("a", 4 * B))
    return shape(fiemap(a, flags=1))


@case
def fiemap_shared():
    a, b = make("a", pat("a", 4 * B)), make("b", b"")
    clone(b, a)
    return shape(fiemap(a, flags=1)), [x[1] for x in fiemap(a)[3]] == [x[1] for x in fiemap(b)[3]]


@case
def fiemap_hole():
    a = make("a", pat("a", B))
    os.pwrite(a, pat("b", B), 8 * B)
    return shape(fiemap(a, flags=1))


@case
def fiemap_unwritten():
    a = make("a", b"")
    os.posix_fallocate(a, 0, 4 * B)
    return shape(fiemap(a, flags=1))


@case
def fiemap_count_only():
    a = make("a", pat("a", B))
    os.pwrite(a, pat("b", B), 8 * B)
    return shape(fiemap(a, flags=1, count=0))


@case
def fiemap_room_for_one():
    a = make("a", pat("a", B))
    os.pwrite(a, pat("b", B), 8 * B)
    return shape(fiemap(a, flags=1, count=1))


@case
def fiemap_empty():
    return shape(fiemap(make("a", b"")))


@case
def fiemap_zero_length():
    return fiemap(make("a", pat("a", B)), length=0)[0]


@case
def fiemap_far_out():
    a = make("a", pat("a", B))
    return fiemap(a, start=1 << 63)[0], fiemap(a, start=1 << 40)[0]


@case
def fiemap_unknown_flag():
    return shape(fiemap(make("a", pat("a", B)), flags=0x80000001))


@case
def fiemap_too_many():
    a = make("a", pat("a", B))
    buf = ctypes.create_string_buffer(struct.pack("=QQIIII", 0, B, 0, 0, 0xFFFFFFFF, 0), 32)
    return ioctl(a, FIEMAP, buf)


@case
def fiemap_write_only():
    make("a", pat("a", B))
    os.sync()
    return shape(fiemap(os.open(path("a"), os.O_WRONLY), flags=1))


@case
def fiemap_bad_pointer():
    return ioctl(make("a", pat("a", B)), FIEMAP, 8)


# ---- the frame ----------------------------------------------------------------------------------------


def set_flags(fd, flags):
    fcntl.ioctl(fd, SETFLAGS, array.array("i", [flags]))


def make2(name, data):
    """make() where a size limit stands in the way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    fd = make(name, data)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return fd


def with_limit(limit, fn):
    """fn under RLIMIT_FSIZE; says whether SIGXFSZ came."""
    came = []
    old = signal.signal(signal.SIGXFSZ, lambda *_: came.append(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        r = fn()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    return r, "SIGXFSZ" if came else "no signal"


def as_user(fn, groups=()):
    """fn in a child that is nobody for good; what it returns."""
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups(list(groups))
            os.setresgid(nobody, nobody, nobody)
            os.setresuid(nobody, nobody, nobody)
            os.write(w, repr(fn()).encode())
        except Exception as e:
            os.write(w, repr(repr(e)).encode())
        os._exit(0)
    os.close(w)
    out = b""
    while True:
        more = os.read(r, 65536)
        if not more:
            break
        out += more
    os.close(r)
    os.waitpid(pid, 0)
    return eval(out.decode())


def main():
    global work
    base = sys.argv[1]
    only = sys.argv[2:]
    os.umask(0)
    for i, fn in enumerate(cases):
        if only and fn.__name__ not in only:
            continue
        work = os.path.join(base, "exec_case_%d" % i)
        os.mkdir(work, 0o777)
        before = set(os.listdir("/proc/self/fd"))
        try:
            result = fn()
        except Exception as e:
            result = repr(e)
        print("%-50s %s" % (fn.__name__, result), flush=True)
        for fd in set(os.listdir("/proc/self/fd")) - before:
            try:
                os.close(int(fd))
            except OSError:
                pass
        for name in os.listdir(work):
            os.unlink(path(name))
        os.rmdir(work)


main()
