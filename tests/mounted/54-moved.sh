#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A pool that is used as a plain file, then mapped as persistent memory, and back. All data stays; what a power
# cut left beyond the end of a file on the plain file is never visible.
# backends: file
# seconds: 60 60
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

POOL=$MEM/pool
as_file() {
	unset PMEM_IS_PMEM_FORCE
	pool_mount
	[ "$("$UMBRACTL" info "$MNT" --json | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["kind"])')" = file ] ||
		die "not used as a plain file"
}
as_dax() {
	export PMEM_IS_PMEM_FORCE=1
	pool_mount
	[ "$("$UMBRACTL" info "$MNT" --json | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["kind"])')" = fsdax ] ||
		die "not mapped as persistent memory"
}

unset PMEM_IS_PMEM_FORCE
pool_make 64M
as_file
head -c 1000 /dev/urandom >"$MNT/short"
head -c 300K /dev/urandom >"$MNT/long"
sum=$(md5sum <"$MNT/long")
lba=$("$UMBRACTL" map "$MNT/short" --json | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["extents"][0]["lba"])')
[ "$lba" -gt 0 ] || die "no block number"
pool_umount

# As a write behind the end whose transaction a power cut took.
printf 'left by a lost write' | dd of="$POOL" bs=1 seek=$((lba * 4096 + 1000)) conv=notrunc status=none
pool_fsck
as_dax
[ "$(md5sum <"$MNT/long")" = "$sum" ] || die "content changed between the kinds"
truncate -s 2000 "$MNT/short"
[ "$(tail -c 1000 "$MNT/short" | tr -d '\0' | wc -c)" = 0 ] || die "bytes from behind the end show"
echo dax >>"$MNT/long"
pool_kill_check_mount
[ "$(tail -c 4 "$MNT/long")" = dax ] || die "lost an append"
pool_umount
pool_fsck
as_file
[ "$(tail -c 4 "$MNT/long")" = dax ] || die "the append is not there as a plain file"
pool_finish
