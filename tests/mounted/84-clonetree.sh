#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# umbractl clone -r as root: the daemon clones directories itself. Checks the result, who may request it, and that the
# kernel keeps no stale entries.
# backends: dax file
# long-backends: dax file loop
# beside: yes
# seconds: 60 60
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
[ "$(id -u)" = 0 ] || skip "for root"

# same A B: everything of two trees, content too.
same() {
	"$PYTHON" "$LIB/treecmp.py" "$1" "$2" || die "$2 differs from $1"
	diff -r --no-dereference "$1" "$2" 2>&1 | grep -v ' while file ' >"$T/diff"
	[ ! -s "$T/diff" ] || die "$2: $(head -n1 "$T/diff")"
}

pool_make 1G
pool_mount
mkdir -p "$MNT/tree/sub/many" "$MNT/tree/empty"
(
	cd "$MNT/tree" || exit 1
	for i in $(seq 1000); do echo "$i" >"sub/many/$i"; done
	head -c 3000000 /dev/urandom >large && truncate -s 10M sparse && fallocate -l 1M unwritten
	mkfifo fifo && mknod null c 1 3 && mknod block b 7 0
	ln -s ../nowhere dangling && ln -s "$(printf 'x%.0s' {1..1000})" long
	echo text >"$(printf 'odd\nname \377')" && ln "$(printf 'odd\nname \377')" hard
	chown -h 55:66 large dangling && chmod 6755 large && touch -h -d 2001-02-03 large dangling null
	mkdir -m 0 shut && chmod 2775 sub && chown 77:88 sub && touch -d 2002-03-04 sub/many
	"$PYTHON" -c '
import os, socket
socket.socket(socket.AF_UNIX).bind("socket")
os.setxattr("large", "user.one", b"1" * 3000)
os.setxattr("sub/many/7", "user.two", b"2" * 60000)
os.setxattr("sub/many/7", "user.three", b"3" * 60000)
os.setxattr("dangling", "trusted.link", b"3", follow_symlinks=False)
os.setxattr("sub", "trusted.dir", b"4" * 2000)
os.setxattr("sub/many/9", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
' || exit 1
	! command -v setfacl >/dev/null || { setfacl -m u:1000:rwx,d:u:1001:rx sub && setfacl -m g:5:rw sub/many/8; }
) || die "cannot make the tree"

say "everything is kept, in few requests"
before=$(counter fuse_requests)
"$UMBRACTL" clone -r "$MNT/tree" "$MNT/new" || die "clone -r"
n=$(($(counter fuse_requests) - before))
say "$n requests for $(find "$MNT/tree" | wc -l) entries"
[ "$n" -lt 250 ] || die "it was cloned entry by entry"
same "$MNT/tree" "$MNT/new"
[ "$("$UMBRACTL" du --json -r "$MNT/new" | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)[0]["exclusive_bytes"])')" = 0 ] ||
	die "blocks are not shared"

say "the same, entry by entry: something is mounted in the tree"
mount --bind "$MNT/tree/empty" "$MNT/tree/empty" || die "bind"
before=$(counter fuse_requests)
"$UMBRACTL" clone -r "$MNT/tree" "$MNT/slow" || die "clone -r"
[ $(($(counter fuse_requests) - before)) -gt 1000 ] || die "the daemon cannot see what is mounted in a tree"
umount "$MNT/tree/empty"
same "$MNT/new" "$MNT/slow"
echo secret >"$MEM/over"
mount --bind "$MEM/over" "$MNT/tree/sub/many/5" || die "bind"
"$UMBRACTL" clone -r "$MNT/tree" "$MNT/over" 2>"$T/err" && die "a file of another filesystem was cloned"
grep -q "another filesystem" "$T/err" || die "$(cat "$T/err")"
umount "$MNT/tree/sub/many/5"
rm -rf "$MNT/slow"

say "stores through mappings are in, of open files and of closed ones"
"$PYTHON" - "$MNT" "$UMBRACTL" <<'END' || die "stores are missing"
import mmap, os, subprocess, sys
mnt, umbractl = sys.argv[1:]
os.mkdir(mnt + "/maps")
maps = []
for i in range(40):
    fd = os.open(f"{mnt}/maps/{i}", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"o" * 100000)
    if i < 10:  # opened through a view first, which it then is bound to
        subprocess.run([umbractl, "clone", f"{mnt}/maps/{i}", f"{mnt}/maps/{i}-clone"], check=True)
        os.close(fd)
        reader = os.open(f"{mnt}/maps/{i}", os.O_RDONLY)
        fd = os.open(f"{mnt}/maps/{i}", os.O_RDWR)
        os.close(reader)
    m = mmap.mmap(fd, 100000)
    os.close(fd)
    m[50000:50003] = b"new"
    if i % 2:
        m.close()
    else:
        maps.append(m)
subprocess.run([umbractl, "clone", "-r", mnt + "/maps", mnt + "/maps2"], check=True)
for i in range(40):
    data = open(f"{mnt}/maps2/{i}", "rb").read()
    assert data[50000:50003] == b"new" and len(data) == 100000, i
END

say "who may ask, and what the kernel believed before"
cat >"$T/ask.py" <<'END'
import errno, fcntl, os, struct, sys
REQUEST = 3 << 30 | 8240 << 16 | ord("U") << 8 | 20


def ask(src, dst, op, cookie=0):
    page = bytearray(8240)
    struct.pack_into("QQQI", page, 0, os.stat(src).st_ino, cookie, 0, op)
    fd = os.open(dst, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, REQUEST, page)
    finally:
        os.close(fd)
    return page


def refused(want, *args):
    try:
        ask(*args)
    except OSError as e:
        assert e.errno == want, e
        return
    raise AssertionError("not refused")


os.chdir(sys.argv[1])
if sys.argv[2] == "refused":
    refused(errno.EPERM, "tree", "dst", 0)
    refused(errno.EPERM, "tree", "dst", 1)
    sys.exit()
os.stat("dst")
for name in ("1", "2"):
    assert not os.path.exists("dst/" + name)
page = ask("tree/sub/many", "dst", 0)
end, entries, files, count = struct.unpack_from("IIII", page, 28)
cookie = struct.unpack_from("Q", page, 8)[0]
assert not end and files == entries == 256 and cookie, (end, entries)
while not end:
    page = ask("tree/sub/many", "dst", 0, cookie)
    cookie = struct.unpack_from("Q", page, 8)[0]
    end, more, files, n = struct.unpack_from("IIII", page, 28)
    entries += more
    count += n
# The one with more attributes than a transaction takes is left.
assert (entries, count) == (999, 1), (entries, count)
assert open("dst/1").read() == "1\n" and open("dst/2").read() == "2\n"
assert len(os.listdir("dst")) == 999
assert os.stat("dst").st_mtime > os.stat("tree/sub").st_mtime
ask("tree/sub", "dst", 1)
a, b = os.stat("tree/sub"), os.stat("dst")
assert (a.st_mode, a.st_uid, a.st_gid, a.st_mtime_ns) == (b.st_mode, b.st_uid, b.st_gid, b.st_mtime_ns)
assert os.getxattr("dst", "trusted.dir") == b"4" * 2000
refused(errno.EEXIST, "tree/sub/many", "dst", 0)
refused(errno.EEXIST, "tree/sub", "dst", 1)
refused(errno.EINVAL, "tree", "dst", 2)
refused(errno.ENOTDIR, "tree/large", "dst", 0)
refused(errno.ENOTDIR, "tree", "tree/large", 0)
END
chmod 711 "$T" # for users that are not root
mkdir "$MNT/dst"
chmod 777 "$MNT/dst"
setpriv --reuid 65534 --regid 65534 --clear-groups "$PYTHON" "$T/ask.py" "$MNT" refused || die "a user was served"
for cap in sys_admin dac_read_search chown mknod; do
	setpriv --bounding-set "-$cap" --inh-caps "-$cap" "$PYTHON" "$T/ask.py" "$MNT" refused || die "served without $cap"
done
! unshare -Ur true 2>/dev/null || unshare -Ur "$PYTHON" "$T/ask.py" "$MNT" refused || die "a namespace's root was served"
[ -z "$(ls -A "$MNT/dst")" ] || die "what was refused has been done"
"$PYTHON" "$T/ask.py" "$MNT" served || die "asking"

say "after kill -9 it is what it was"
sync -f "$MNT"
pool_kill_check_mount
same "$MNT/tree" "$MNT/new"
pool_finish
