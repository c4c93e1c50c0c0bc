#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A machine check, sent by the emulated hardware, for a block of a mounted pool: the daemon survives, exactly that page
# can no longer be read, and it is on the kernel's list at the next mount.
# backends: devdax
# long-backends: fsdax devdax
# machine: mce
# seconds: 100
# shellcheck source=../mounted/lib.sh
. "$(dirname "$0")/../mounted/lib.sh"
# shellcheck source=bad.sh
. "$(dirname "$0")/bad.sh"
start
# Who is interrupted must not be the kernel, which would not survive: a process that only spins, on the one processor.
(while :; do :; done) &
spinner=$!
renice -n 19 $spinner >/dev/null
pool_make 64M --metadata=dup
pool_mount
head -c 196608 /dev/urandom >"$MEM/a"
cp "$MEM/a" "$MNT/a"
cp "$MEM/a" "$MNT/other"
sync -f "$MNT"
page=29
lba=$(lba_of "$MNT/a" $page) || die "where is page $page?"
address=$(physical $((lba * 4096))) || die "where is block $lba?"
say "block $lba is at $address"
tell "mce -b 0 9 0xbd80000000000134 0x7 $address 0x8c"
sleep 4 # in which nothing else runs
wait_log "block $lba is on the kernel's list of bad blocks"
kill $spinner
is_mounted && kill -0 "$(cat "$T/pid")" || die "the daemon is gone"
exactly_lost "$MNT/a" "$MEM/a" $page
cmp "$MNT/other" "$MEM/a" || die "another file suffers"
echo more >"$MNT/new" || die "no writing any more"
: >"$LOG"
pool_remount
grep -q "block $lba is on the kernel's list of bad blocks" "$LOG" || die "the next mount does not say so"
exactly_lost "$MNT/a" "$MEM/a" $page
pool_umount
