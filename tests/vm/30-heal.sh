#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Memory that heals when a whole block is rewritten: a table of the pool is listed as bad; it is rewritten from its copy,
# the kernel removes it from its list, and nothing is left to be done.
# backends: fsdax
# machine: e820
# seconds: 120
# shellcheck source=../mounted/lib.sh
. "$(dirname "$0")/../mounted/lib.sh"
# shellcheck source=bad.sh
. "$(dirname "$0")/bad.sh"
start
pool_make 64M --metadata=dup
pool_mount
head -c 1048576 /dev/urandom >"$MEM/a"
cp "$MEM/a" "$MNT/a"
offset=$(device_offset 4096) || die "where is block 1?"
echo "$((offset / 512)) 8" >/sys/block/pmem0/badblocks || die "cannot list a bad block"
# It may have been rewritten by now; that it was listed is then in the log.
grep -q "^$((offset / 512)) " /sys/block/pmem0/badblocks ||
	grep -q "block 1 is on the kernel's list of bad blocks" "$LOG" || die "the block is not listed"
wait_log "block 1 is on the kernel's list of bad blocks"
for ((i = 0; i < 100; i++)); do
	grep -q "^$((offset / 512)) " /sys/block/pmem0/badblocks || break
	sleep 0.2
done
[ $i -lt 100 ] || die "still listed: $(cat /sys/block/pmem0/badblocks)"
echo 3 >/proc/sys/vm/drop_caches
cmp "$MNT/a" "$MEM/a" || die "the file is not what it was"
cp "$MEM/a" "$MNT/b" || die "no writing"
: >"$LOG"
pool_remount
grep "list of bad blocks" "$LOG" && die "listed again"
cmp "$MNT/b" "$MEM/a" || die "the file is not what it was"
pool_finish
