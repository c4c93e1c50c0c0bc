# SPDX-License-Identifier: BSD-3-Clause
"""What a mount with -o writeback must do though the kernel has the data first. writeback.py MNT UMBRACTL CASE"""
import ctypes
import errno
import fcntl
import mmap
import os
import struct
import subprocess
import sys
import time

MNT, CTL, CASE = sys.argv[1:4]
MIB = 1 << 20
BLOCK = 4096
FIEMAP = 0xC020660B
FICLONE = 0x40049409
SETFLAGS = 0x40086602
APPEND_FL, IMMUTABLE_FL = 0x20, 0x10


def path(name):
    return f"{MNT}/{name}"


def open_new(name, flags=0):
    return os.open(path(name), os.O_RDWR | os.O_CREAT | os.O_TRUNC | flags, 0o644)


def counter(name):
    out = subprocess.run([CTL, "stat", MNT], text=True, capture_output=True, check=True).stdout
    return int(dict(line.split()[:2] for line in out.splitlines())[name])


def run(*words):
    subprocess.run(words, check=True)


def content(name):
    with open(path(name), "rb") as f:
        return f.read()


def forget(name):
    """The kernel lets go of the file's pages: who reads next asks the daemon."""
    fd = os.open(path(name), os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def remember(name, ctime=True):
    """For case_remembered, which is run when the kernel has forgotten inodes as well, that is, after a remount."""
    st = os.stat(path(name))
    with open(path("remembered"), "a") as f:
        print(name, st.st_size, st.st_mtime_ns, st.st_ctime_ns if ctime else "any", file=f)


def case_remembered():
    """Sizes and times are what they were."""
    with open(path("remembered")) as f:
        for line in f:
            name, *want = line.split()
            st = os.stat(path(name))
            have = [str(x) for x in (st.st_size, st.st_mtime_ns, st.st_ctime_ns)]
            assert have == want or (want[2] == "any" and have[:2] == want[:2]), f"{name}: size, mtime, ctime {have}, must be {want}"


def pattern(n, what):
    return (bytes([what]) * 100 + what.to_bytes(4, "little") * 7) * (n // 128 + 1)


def case_kept():
    """Small writes stay in the kernel; close sends them."""
    before = counter("writes")
    fd = open_new("small")
    for i in range(1024):
        os.write(fd, pattern(BLOCK, i % 256)[:BLOCK])
    assert os.fstat(fd).st_size == 4 * MIB
    os.close(fd)
    remember("small")
    sent = counter("writes") - before
    assert sent < 200, f"{sent} requests for 1024 writes"
    forget("small")
    data = content("small")
    assert all(data[i * BLOCK:][:BLOCK] == pattern(BLOCK, i % 256)[:BLOCK] for i in range(1024))


def case_times():
    """Times are the kernel's, and the same when it has sent and forgotten them."""
    fd = open_new("times")
    os.write(fd, b"x" * 100000)
    time.sleep(0.05)
    began = time.time()
    os.write(fd, b"y" * 100000)
    ended = time.time()
    want = os.fstat(fd)
    assert began - 0.02 < want.st_mtime <= ended, f"{want.st_mtime} is not the time of the write, {began}"
    run("sync", "-f", MNT)
    time.sleep(0.3)
    os.fsync(fd)
    assert os.fstat(fd).st_mtime_ns == want.st_mtime_ns, "fsync changed mtime"
    os.close(fd)
    remember("times")
    # Set times stay, also when what was written before comes after.
    fd = open_new("times2")
    os.write(fd, b"z" * 50000)
    os.utime(fd, ns=(10**18, 10**18 + 7))
    os.close(fd)
    assert os.stat(path("times2")).st_mtime_ns == 10**18 + 7, "a time that was set is lost"
    remember("times2")
    # And what O_DIRECT writes has one.
    fd = open_new("times3", os.O_DIRECT)
    page = mmap.mmap(-1, BLOCK)
    page.write(b"d" * BLOCK)
    began = time.time()
    os.pwritev(fd, [page], 0)
    want = os.fstat(fd)
    assert want.st_mtime > began - 1, "a direct write sets no time"
    os.close(fd)
    remember("times3")


def case_space():
    """What the kernel has sent is seen in st_blocks, while the file is open."""
    fd = open_new("space")
    os.write(fd, b"x" * MIB)
    os.fsync(fd)
    blocks = os.fstat(fd).st_blocks
    assert blocks * 512 == MIB, f"st_blocks is {blocks}"
    os.close(fd)


def case_seek():
    """SEEK_DATA, SEEK_HOLE and a copy by them see data that only the kernel has."""
    fd = open_new("sparse")
    os.ftruncate(fd, 4 * MIB)
    os.pwrite(fd, b"1" * BLOCK, MIB)
    os.pwrite(fd, b"2" * BLOCK, 3 * MIB)
    assert os.lseek(fd, 0, os.SEEK_DATA) == MIB
    os.pwrite(fd, b"3" * BLOCK, 2 * MIB)
    assert os.lseek(fd, MIB, os.SEEK_HOLE) == MIB + BLOCK
    assert os.lseek(fd, MIB + BLOCK, os.SEEK_DATA) == 2 * MIB
    os.pwrite(fd, b"4" * 10, 4 * MIB)
    assert os.lseek(fd, 4 * MIB - 1, os.SEEK_DATA) == 4 * MIB
    try:
        os.lseek(fd, 4 * MIB + 10, os.SEEK_DATA)
        assert False, "SEEK_DATA behind the end"
    except OSError as e:
        assert e.errno == errno.ENXIO
    os.pwrite(fd, b"5" * BLOCK, 512 * 1024)
    run("cp", "--sparse=always", path("sparse"), path("sparse2"))
    assert content("sparse2") == os.pread(fd, 5 * MIB, 0), "a copy lacks data"
    os.close(fd)


def fiemap(fd, flags):
    head = struct.pack("=QQIIII", 0, 2**63 - 1, flags, 0, 16, 0)
    buf = bytearray(head + bytes(16 * 56))
    fcntl.ioctl(fd, FIEMAP, buf)
    count = struct.unpack_from("=QQIIII", buf)[3]
    return [struct.unpack_from("QQQ", buf, 32 + i * 56) for i in range(count)]


def case_fiemap():
    """Run below `umbractl exec`: extents of what only the kernel has; with and without FIEMAP_FLAG_SYNC."""
    for flags in 0, 1:
        fd = open_new(f"map{flags}")
        os.write(fd, b"m" * (256 * 1024))
        extents = fiemap(fd, flags)
        assert sum(e[2] for e in extents) == 256 * 1024, f"extents: {extents}"
        os.close(fd)
    fd = open_new("map")
    os.write(fd, b"m" * (64 * 1024))
    out = subprocess.run([CTL, "map", path("map")], text=True, capture_output=True, check=True).stdout
    assert len(out.splitlines()) > 1, f"umbractl map: {out}"
    os.close(fd)


def case_clone():
    """Clones by every door have what was written before, and the kernel knows their sizes."""
    src = open_new("src")
    want = b""
    for i, door in enumerate(("clone", "cp", "reflink", "range")):
        want = pattern(300000 + i * 5000, i)
        os.ftruncate(src, 0)
        os.pwrite(src, want, 0)
        dst = path(f"dst-{door}")
        if door == "clone":
            run(CTL, "clone", path("src"), dst)
        elif door == "cp":
            run("cp", path("src"), dst)
        elif door == "reflink":
            run(CTL, "exec", "cp", "--reflink=always", path("src"), dst)
        else:
            fd = os.open(dst, os.O_RDWR | os.O_CREAT)
            assert os.copy_file_range(src, fd, len(want), 0, 0) == len(want)
            os.close(fd)
        assert os.stat(dst).st_size == len(want), f"{door}: size {os.stat(dst).st_size}"
        assert content(f"dst-{door}") == want, f"{door}: other bytes"
        forget(f"dst-{door}")
        assert content(f"dst-{door}") == want, f"{door}: other bytes, read again"
        refs = subprocess.run([CTL, "map", dst], text=True, capture_output=True, check=True).stdout
        assert "shared" in refs or int(refs.splitlines()[1].split()[3]) > 1, f"{door}: not shared: {refs}"
    # The source goes on, the clones stay.
    os.pwrite(src, b"!" * len(want), 0)
    os.fsync(src)
    assert content("dst-range") == want
    os.close(src)
    # A tree in which a file is open and has been written to.
    os.mkdir(path("tree"))
    fd = open_new("tree/file")
    os.write(fd, want)
    run(CTL, "clone", "-r", "-q", path("tree"), path("tree2"))
    assert content("tree2/file") == want, "clone -r: other bytes"
    os.close(fd)


def case_ficlone():
    """Run below `umbractl exec`: FICLONE into files that are open; sizes, times, dirty pages of both."""
    src, dst = open_new("ficlone-src"), open_new("ficlone-dst")
    want = pattern(20 * BLOCK, 77)[:20 * BLOCK]
    os.pwrite(src, want, 0)
    os.pwrite(dst, b"-" * (3 * BLOCK), 0)
    os.utime(dst, ns=(10**18, 10**18))
    os.pwrite(dst, b"=", BLOCK)
    os.utime(dst, ns=(10**18, 10**18))
    fcntl.ioctl(dst, FICLONE, src)
    st = os.fstat(dst)
    assert st.st_size == len(want), f"size {st.st_size}"
    assert st.st_mtime > 1.5e9, "FICLONE sets no time"
    assert os.pread(dst, len(want), 0) == want
    # An appender and a mapping rely on the size.
    fd = os.open(path("ficlone-dst"), os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"end")
    os.close(fd)
    m = mmap.mmap(dst, len(want), prot=mmap.PROT_READ)
    assert m[:] == want
    m.close()
    forget("ficlone-dst")
    assert content("ficlone-dst") == want + b"end"
    # Into a longer one.
    os.ftruncate(dst, 0)
    os.pwrite(dst, b"L" * (40 * BLOCK), 0)
    fcntl.ioctl(dst, FICLONE, src)
    assert content("ficlone-dst") == want + b"L" * (20 * BLOCK)
    os.close(src)
    os.close(dst)


def case_dedupe():
    """Files are compared as their users see them."""
    a, b = open_new("same-a"), open_new("same-b")
    want = pattern(64 * BLOCK, 5)[:64 * BLOCK]
    os.write(a, want)
    os.write(b, want)
    assert subprocess.run([CTL, "dedupe", path("same-a"), path("same-b")], capture_output=True).returncode == 0
    used = subprocess.run([CTL, "map", path("same-b")], text=True, capture_output=True, check=True).stdout
    assert "shared" in used or int(used.splitlines()[1].split()[3]) > 1, f"not shared: {used}"
    os.pwrite(b, b"other", 5 * BLOCK)
    subprocess.run([CTL, "dedupe", path("same-a"), path("same-b")], capture_output=True)
    want_b = want[:5 * BLOCK] + b"other" + want[5 * BLOCK + 5:]
    assert content("same-b") == want_b and content("same-a") == want
    forget("same-b")
    assert content("same-b") == want_b and content("same-a") == want
    os.close(a)
    os.close(b)


def case_append():
    """Two who append to one file, one of them descriptor by descriptor."""
    open_new("log")
    line = b"%d %06d " + b"." * 50 + b"\n"
    kids = []
    for who in range(4):
        pid = os.fork()
        if not pid:
            fd = os.open(path("log"), os.O_WRONLY | os.O_APPEND)
            for i in range(2000):
                os.write(fd, line % (who, i))
                if who % 2 and i % 100 == 0:
                    os.close(fd)
                    fd = os.open(path("log"), os.O_WRONLY | os.O_APPEND)
            os._exit(0)
        kids.append(pid)
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in kids)
    forget("log")
    lines = content("log").splitlines(keepends=True)
    assert len(lines) == 8000, f"{len(lines)} lines"
    for who in range(4):
        assert [x for x in lines if x.startswith(b"%d " % who)] == [line % (who, i) for i in range(2000)]


def case_partial():
    """Parts of pages through descriptors that cannot read; the rest of the page comes from the daemon."""
    want = bytearray(pattern(10 * BLOCK, 9)[:10 * BLOCK])
    fd = open_new("partial")
    os.write(fd, want)
    os.close(fd)
    forget("partial")
    fd = os.open(path("partial"), os.O_WRONLY)
    for at in 5, BLOCK - 2, 3 * BLOCK + 100, 9 * BLOCK + 4000, 10 * BLOCK + 17:
        os.pwrite(fd, b"abcd", at)
        if at > len(want):
            want += bytes(at - len(want))
        want[at:at + 4] = b"abcd"
    os.close(fd)
    assert content("partial") == want
    forget("partial")
    assert content("partial") == want


def case_maps():
    """Mappings, truncation, holes, write and O_DIRECT of one file."""
    fd = open_new("maps")
    os.ftruncate(fd, MIB)
    m = mmap.mmap(fd, MIB)
    m[0:4] = b"map0"
    os.pwrite(fd, b"wr01", BLOCK)
    assert m[BLOCK:BLOCK + 4] == b"wr01" and os.pread(fd, 4, 0) == b"map0"
    m[300000:300004] = b"gone"
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.fallocate(fd, 3, ctypes.c_long(290000), ctypes.c_long(20000))
    assert os.pread(fd, 4, 300000) == bytes(4) and m[300000:300004] == bytes(4)
    direct = os.open(path("maps"), os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, BLOCK)
    m[2 * BLOCK:2 * BLOCK + 4] = b"map2"
    assert os.preadv(direct, [page], 2 * BLOCK) == BLOCK and page[:4] == b"map2", "a direct read misses a store"
    page[:4] = b"dir2"
    os.pwritev(direct, [page], 2 * BLOCK)
    assert m[2 * BLOCK:2 * BLOCK + 4] == b"dir2" and os.pread(fd, 4, 2 * BLOCK) == b"dir2"
    m[5 * BLOCK:5 * BLOCK + 4] = b"cut!"
    os.ftruncate(fd, 5 * BLOCK + 2)
    os.ftruncate(fd, MIB)
    assert os.pread(fd, 4, 5 * BLOCK) == b"cu\0\0"
    m.flush()
    m.close()
    os.close(direct)
    os.close(fd)
    forget("maps")
    data = content("maps")
    assert len(data) == MIB
    want = {0: b"map0", BLOCK: b"wr01", 2 * BLOCK: b"dir2", 5 * BLOCK: b"cu\0\0", 300000: bytes(4)}
    for at, bytes_ in want.items():
        assert data[at:at + 4] == bytes_, f"{at}: {data[at:at + 4]}"


def case_flags():
    """Append-only and immutable files take what was written before, and its times."""
    for flag in APPEND_FL, IMMUTABLE_FL:
        name = f"flag{flag}"
        fd = os.open(path(name), os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.write(fd, b"before")
        want = os.fstat(fd).st_mtime_ns
        fcntl.ioctl(fd, SETFLAGS, struct.pack("l", flag))
        os.fsync(fd)
        if flag == APPEND_FL:
            os.write(fd, b" and after")
            want = os.fstat(fd).st_mtime_ns
        os.fsync(fd)
        os.close(fd)
        assert os.stat(path(name)).st_mtime_ns == want, "the time of a write is lost"
        fd = os.open(path(name), os.O_RDONLY)
        fcntl.ioctl(fd, SETFLAGS, struct.pack("l", 0))
        os.close(fd)
        remember(name, ctime=False)


def case_full():
    """On a full pool fsync or close tells, each descriptor once; nothing is kept back silently."""
    other = open_new("other")
    fd = open_new("full")
    block = os.urandom(MIB)
    wrote = told = 0
    for _ in range(200):
        try:
            wrote += os.write(fd, block)
            os.fsync(fd)
        except OSError as e:
            assert e.errno == errno.ENOSPC
            told += 1
            break
    assert told, "nobody was told of a full pool"
    os.write(other, b"o" * 3000000)
    try:
        os.close(other)
        assert False, "close of a file that found no room says nothing"
    except OSError as e:
        assert e.errno == errno.ENOSPC
    try:
        os.close(fd)
    except OSError as e:
        assert e.errno == errno.ENOSPC


def case_mapfull():
    """Stores through a mapping of which all but the last pages find room: with and without the option."""
    ballast = os.open(path("ballast"), os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(ballast, 0, os.statvfs(MNT).f_bavail * BLOCK - 4 * MIB)
    told = kept = 0
    for size in range(3 * MIB, 5 * MIB, 128 * 1024):
        data = os.urandom(size)
        fd = open_new("mapped")
        os.ftruncate(fd, size)
        m = mmap.mmap(fd, size)
        m[:] = data
        try:
            m.flush()
            kept += 1
        except OSError as e:
            assert e.errno == errno.ENOSPC
            told += 1
            data = None
        m.close()
        try:
            os.close(fd)
        except OSError as e:
            assert e.errno == errno.ENOSPC and not data
        forget("mapped")
        assert not data or content("mapped") == data, f"{size} bytes: lost without a word"
        os.unlink(path("mapped"))
        os.statvfs(MNT)
    assert told and kept, f"{told} times told, {kept} times kept"
    os.close(ballast)
    os.unlink(path("ballast"))


def case_hold():
    """Writes, says so, and stays: for tests of the daemon's end."""
    synced, kept = open_new("synced"), open_new("kept")
    os.write(synced, pattern(MIB, 3)[:MIB])
    os.fsync(synced)
    os.utime(path("kept"), (1e9, 1e9))
    os.write(kept, pattern(MIB, 4)[:MIB])
    print("ready", flush=True)
    time.sleep(60)


def case_held():
    """After that: argv[4] says whether what was not synced must be there."""
    assert content("synced") == pattern(MIB, 3)[:MIB], "what fsync acknowledged is lost"
    if sys.argv[4] == "all":
        assert content("kept") == pattern(MIB, 4)[:MIB], "what was written is lost"
        assert os.stat(path("kept")).st_mtime > 1.5e9, "new content has an old time"


globals()[f"case_{CASE}"]()
