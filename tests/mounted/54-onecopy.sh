#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Plain files: data that was written or read does not stay in the page cache of the pool's file.
# backends: file
# seconds: 60 60
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
[ "$BACKEND" = file ] || skip "the page cache of a plain file is asked for"
[ "$(stat -f -c %T "$T")" != tmpfs ] || skip "tmpfs has the pool in memory in any case"
command -v fincore >/dev/null || skip "no fincore"

# Bytes of the pool that are in the page cache.
resident() {
	fincore -b -n -o RES "$POOL" | tr -d ' '
}

pool_make 512M
pool_mount
before=$(resident)
dd if=/dev/urandom of="$MNT/f" bs=1M count=96 status=none conv=fsync || die "cannot write"
# A thread drops them, soon.
for _ in $(seq 50); do
	n=$(($(resident) - before))
	[ "$n" -ge $((32 << 20)) ] || break
	sleep 0.1
done
[ "$n" -lt $((32 << 20)) ] || die "writing 96 MiB brought $n bytes of the pool into the page cache"
say "written 96 MiB: $((n >> 20)) MiB more of the pool in the page cache"
sum=$(sha256sum <"$MNT/f")
pool_finish
pool_mount
before=$(resident)
[ "$(sha256sum <"$MNT/f")" = "$sum" ] || die "other content after a remount"
n=$(resident)
[ "$n" -lt $((before + (8 << 20))) ] || die "reading 96 MiB brought $((n - before)) bytes of the pool there"
say "read 96 MiB: $(((n - before) >> 20)) MiB more"
pool_finish
