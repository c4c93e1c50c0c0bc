#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Write errors of the medium: fsync reports to each descriptor once, changes stop, reads continue, and the next mount
# has what was durable. A sparse pool whose host filesystem is full: ENOSPC, and a consistent pool.
# backends: file
# beside: yes
# seconds: 120 120
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
need losetup mkfs.ext4 fallocate

host=$T/host dev=
finish() {
	local rc=$?
	um_clean_below "$T"
	[ -z "$dev" ] || losetup -d "$dev" 2>/dev/null
	(exit $rc)
	cleanup
}
trap finish EXIT
mkdir -p "$host"

# ---- writes that the medium refuses: a loop device on a file of a tmpfs that is full

mount -t tmpfs -o size=64M umbrafs-test "$host" || die "tmpfs"
truncate -s 512M "$host/image"
dev=$(losetup -f --show "$host/image" 2>&1) || skip "no loop device: $dev"
POOL=$dev
"$MKFS" -q "$POOL" || die "mkfs failed"

break_medium() { fallocate -l "$(df -B1 --output=avail "$host" | tail -n1)" "$host/filler"; }
mend_medium() { rm "$host/filler"; }

refused() { # options of the mount
	pool_mount "commit=3600$1"
	mkdir -p "$MNT/d"
	echo durable >"$MNT/d/durable"
	sync "$MNT/d/durable"
	head -c 1M /dev/zero >"$MNT/d/file"
	sync "$MNT/d/file"
	break_medium
	"$PYTHON" - "$MNT/d" "$1" <<'PY' || die "what descriptors are told is wrong"
import errno, os, sys

d, shutdown = sys.argv[1], "shutdown" in sys.argv[2]
later = errno.EIO if shutdown else errno.EROFS
def fails(what, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        return e.errno
    return 0
def expect(what, got, want):
    if got != want:
        sys.exit(f"{what}: {errno.errorcode.get(got, got)}, expected {errno.errorcode.get(want, want)}")

a = os.open(d + "/file", os.O_RDWR)
b = os.open(d + "/file", os.O_RDONLY)
# More than there can be room for; the kernel takes it.
for i in range(8):
    os.pwrite(a, os.urandom(1 << 20), (i + 1) << 20)
open(d + "/lost", "w").close()
expect("fsync of the writer", fails("", os.fsync, a), errno.EIO)
if shutdown:
    expect("reading", fails("", os.stat, d + "/durable2"), errno.EIO)
    sys.exit(0)
c = os.open(d + "/file", os.O_RDONLY)
expect("its second fsync", fails("", os.fsync, a), later)
expect("fsync of the other descriptor", fails("", os.fsync, b), errno.EIO)
expect("fsync of one opened later", fails("", os.fsync, c), later)
expect("creating", fails("", os.open, d + "/new", os.O_CREAT | os.O_WRONLY), errno.EROFS)
expect("writing", fails("", os.pwrite, a, b"x", 0), errno.EROFS)
expect("removing", fails("", os.unlink, d + "/durable"), errno.EROFS)
if open(d + "/durable").read() != "durable\n":
    sys.exit("reading does not go on")
PY
	grep -q 'no more changes are made' "$LOG" || die "the log says nothing"
}

refused ""
[ "$(counter stopped)" = 1 ] || die "umbractl stat: stopped is $(counter stopped)"
"$UMBRACTL" health "$MNT" | grep -q '^read-only ' || die "umbractl health says nothing"
mend_medium
umount -i "$MNT" || die "umount"
pool_wait || die "the daemon does not end"
[ "$(cat "$T/rc")" != 0 ] || die "an end out of order is none to the daemon"
log_ok
pool_fsck
pool_mount
[ "$(cat "$MNT/d/durable")" = durable ] || die "what was durable is lost"
[ "$(counter stopped)" = 0 ] || die "still stopped after another mount"
echo again >"$MNT/d/again"
sync "$MNT/d/again" || die "nothing can be made durable after another mount"
pool_finish

: >"$LOG"
refused ,errors=shutdown
mend_medium
umount -i "$MNT" || die "umount"
pool_wait || die "the daemon does not end"
pool_mount
[ "$(cat "$MNT/d/again")" = again ] || die "what was durable is lost"
pool_finish
pool_try_mount errors=panic && die "errors=panic is taken"
losetup -d "$dev"
dev=
umount "$host"

# ---- a sparse pool in a file, on a filesystem that is full

truncate -s 96M "$MEM/host"
mkfs.ext4 -q -F "$MEM/host" || die "mkfs.ext4"
mount -o loop "$MEM/host" "$host" || skip "no loop device for ext4"
POOL=$host/pool
"$MKFS" -q -s 1G --sparse "$POOL" || die "mkfs failed"
pool_mount
i=0
while head -c 300000 /dev/urandom 2>/dev/null | cat >"$MNT/f$i" 2>"$T/err"; do
	i=$((i + 1))
	[ $i -lt 2000 ] || die "a gigabyte fits into 96 MiB"
done
grep -q 'No space left' "$T/err" || die "a full host is: $(cat "$T/err")"
[ $i -gt 100 ] || die "full after $i files"
[ "$(counter stopped)" = 0 ] || die "a full host stops changes: $(tail -n2 "$LOG")"
# Files can be removed, all the same: the journal has its room.
rm -f "$MNT/f$i" "$MNT/f1" || die "nothing can be removed"
sync "$MNT/f0" || die "and made durable"
(cd "$MNT" && sha256sum f*) >"$T/sums"
cat "$MNT/f0" >/dev/null || die "reading"
umount -i "$MNT" || die "umount"
pool_wait || die "the daemon does not end"
log_ok
pool_fsck
umount "$host" && truncate -s 160M "$MEM/host" || die "host"
{ e2fsck -f -p "$MEM/host"; resize2fs "$MEM/host"; } >"$T/out" 2>&1 || die "resize2fs: $(tail -n2 "$T/out")"
mount -o loop "$MEM/host" "$host" || die "host"
pool_mount
(cd "$MNT" && sha256sum -c --quiet "$T/sums") || die "files differ"
head -c 300000 /dev/urandom >"$MNT/more" || die "writing goes on failing"
pool_finish
umount "$host"
say "descriptors told once, read-only, remounted; $i files before the host was full"
