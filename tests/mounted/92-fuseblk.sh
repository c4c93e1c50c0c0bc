#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A pool on a block device with -o fuseblk: sync(2) and umount(2) reach the daemon, the device is
# claimed, clones share page cache, kill -9 loses nothing.
# backends: loop
# seconds: 120 300
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

# Is everything acknowledged covered by a commit? Checked on a copy of the device, replayed as after a power cut:
# it has another device number, so records after the last commit do not count.
on_medium() { # FILE CONTENT
	local dev
	cp --sparse=always "$MEM/image" "$MEM/copy" || die "cp"
	dev=$(losetup -f --show "$MEM/copy") || die "losetup"
	mkdir -p "$T/copy"
	"$UMBRAFS" "$dev" "$T/copy" >"$T/out" 2>&1 || die "copy of the device: $(cat "$T/out")"
	[ "$(cat "$T/copy/$1" 2>/dev/null)" = "$2" ] || die "$1 was not on the medium"
	umount -i "$T/copy" && flock "$dev" true
	losetup -d "$dev"
	rm -f "$MEM/copy"
}

pool_make 128M
pool_mount fuseblk,commit=3600
[ "$(findmnt -n -o FSTYPE "$MNT")" = fuseblk.umbrafs ] || die "type is $(findmnt -n -o FSTYPE "$MNT")"
[ "$(findmnt -n -o SOURCE "$MNT")" = "$POOL" ] || die "source is $(findmnt -n -o SOURCE "$MNT")"

echo one >"$MNT/one"
before=$(counter syncs)
sync
[ "$(counter syncs)" -gt "$before" ] || die "sync(2) did not reach the daemon"
echo two >"$MNT/two"
before=$(counter syncs)
sync -f "$MNT"
[ "$(counter syncs)" -gt "$before" ] || die "syncfs(2) did not reach the daemon"
on_medium two two

"$PYTHON" - "$POOL" <<'E2' || die "the device can be claimed a second time"
import os, sys
try:
    os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)
except OSError:
    sys.exit(0)
sys.exit(1)
E2
"$UMBRAFS" "$POOL" "$MEM" -o fuseblk >"$T/out" 2>&1 && die "mounted twice"
grep -q 'already mounted' "$T/out" || die "second mount says: $(cat "$T/out")"

head -c 1M /dev/urandom >"$MNT/file"
"$UMBRACTL" clone "$MNT/file" "$MNT/clone" || die "clone"
cmp "$MNT/file" "$MNT/clone" || die "the clone differs"
[ "$(counter view_opens)" -gt 0 ] || die "clones do not share page cache: $(tail -n1 "$LOG")"

# umount(2) returns when all is on the medium, though the daemon has said nothing of it before.
echo three >"$MNT/three"
umount -i "$MNT" || die "umount"
on_medium three three
pool_wait || die "the daemon has not ended"
pool_mount fuseblk
[ "$(cat "$MNT/three")" = three ] || die "lost at umount"

echo four >"$MNT/four"
pool_kill
pool_mount fuseblk
[ "$(cat "$MNT/four")" = four ] || die "lost at kill -9"
pool_finish

# Not for files, nor for ordinary users.
truncate -s 64M "$T/pool"
"$MKFS" -q "$T/pool" || die "mkfs"
"$UMBRAFS" "$T/pool" "$MNT" -o fuseblk >"$T/out" 2>&1 && die "mounts a file"
grep -q 'fuseblk is for a pool on a block device' "$T/out" || die "says: $(cat "$T/out")"
