#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A block that the kernel lists as bad, under a pool file on a DAX filesystem: it is noticed while mounted and at the next
# mount; exactly that page cannot be read until it is rewritten, and nothing else is affected; metadata is repaired from its
# copy, data from parity; umbractl health reports each.
# backends: fsdax
# machine: nvdimm
# seconds: 100
# shellcheck source=../mounted/lib.sh
. "$(dirname "$0")/../mounted/lib.sh"
# shellcheck source=bad.sh
. "$(dirname "$0")/bad.sh"
start
pool_make 64M --metadata=dup
pool_mount
head -c 196608 /dev/urandom >"$MEM/a"
cp "$MEM/a" "$MNT/a"
cp "$MEM/a" "$MNT/other"
sync -f "$MNT"
page=29
lba=$(lba_of "$MNT/a" $page) || die "where is page $page?"

say "listed while mounted"
list_bad "$lba"
exactly_lost "$MNT/a" "$MEM/a" $page
health_is lost 1
event_is "$lba" lost "file data" /a
cmp "$MNT/other" "$MEM/a" || die "another file suffers"
echo more >"$MNT/new" || die "no writing any more"
is_mounted && kill -0 "$(cat "$T/pid")" || die "the daemon is gone"

say "listed at mount"
: >"$LOG"
pool_remount
grep -q "block $lba is on the kernel's list of bad blocks" "$LOG" || die "the next mount does not say so"
exactly_lost "$MNT/a" "$MEM/a" $page
health_is lost 1
event_is "$lba" lost "file data" /a
cmp "$MNT/other" "$MEM/a" || die "another file suffers"

say "written again"
dd if="$MEM/a" of="$MNT/a" bs=4096 skip=$page seek=$page count=1 conv=notrunc,fsync status=none || die "cannot write"
echo 3 >/proc/sys/vm/drop_caches
cmp "$MNT/a" "$MEM/a" || die "the page is still lost"
health_is lost 0
health_is retired 1

say "a node of metadata"
sync -f "$MNT"
node=$(node_of 6) || die "no node"
list_bad "$node"
health_is moved 1
event_is "$node" repaired "inode node"
echo 3 >/proc/sys/vm/drop_caches
cmp "$MNT/a" "$MEM/a" || die "the file is not what it was"
pool_remount
cmp "$MNT/other" "$MEM/a" || die "the file is not what it was, at the next mount"
event_is "$lba" lost "file data" /a # and no other one since
pool_umount
mv "$POOL" "$POOL.bad" # keeps the bad blocks, here and at the end
[ "$SMOKE" = 0 ] || exit 0

say "data that parity covers"
: >"$LOG"
pool_make 64M --metadata=dup --parity
pool_mount
cp "$MEM/a" "$MNT/a"
sync -f "$MNT"
lba=$(lba_of "$MNT/a" $page) || die "where is page $page?"
list_bad "$lba"
echo 3 >/proc/sys/vm/drop_caches
cmp "$MNT/a" "$MEM/a" || die "not made again from parity"
health_is moved 1
health_is lost 0
event_is "$lba" repaired "file data" /a
pool_umount
mv "$POOL" "$POOL.bad2"
