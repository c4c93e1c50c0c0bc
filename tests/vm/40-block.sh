#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Pools on block devices of other kinds than the loop devices of the mounted tests: persistent memory used as a plain
# block device, without DAX, and a network block device (NBD, served by qemu-nbd from a file here). Clones, the daemon's
# death with nothing acknowledged lost, growth of the pool into the rest of the device, trim.
# backends: file
# machine: e820
# seconds: 120
# shellcheck source=../mounted/lib.sh
. "$(dirname "$0")/../mounted/lib.sh"
start
dd if=/dev/urandom of="$MEM/a" bs=64K count=48 2>/dev/null

on() {
	local i
	POOL=$1
	say "pool on $POOL"
	"$MKFS" -q -f -s 96M "$POOL" || die "mkfs"
	pool_mount
	"$UMBRACTL" info "$MNT" >"$T/info"
	grep -q '^kind *block$' "$T/info" || die "taken for something else: $(cat "$T/info")"
	cp "$MEM/a" "$MNT/a" || die "cp"
	"$UMBRACTL" clone -q "$MNT/a" "$MNT/clone" || die "clone"
	dd if="$MEM/a" of="$MNT/clone" bs=4096 seek=3 count=5 conv=notrunc,fsync 2>/dev/null || die "write to the clone"
	for i in 1 2 3 4 5; do
		cp "$MEM/a" "$MNT/f$i" || die "cp f$i"
	done
	rm "$MNT/f5" && mkdir "$MNT/dir" && ln "$MNT/f1" "$MNT/dir/link" || die "names"
	pool_kill_check_mount
	cmp "$MNT/a" "$MEM/a" && cmp "$MNT/f4" "$MEM/a" && cmp "$MNT/dir/link" "$MEM/a" || die "data lost with the daemon"
	cmp -n 12288 "$MNT/clone" "$MEM/a" || die "the clone before what was written"
	cmp -n 20480 -i 12288:0 "$MNT/clone" "$MEM/a" || die "what was written to the clone"
	[ ! -e "$MNT/f5" ] || die "a removed file is back"
	"$UMBRACTL" grow "$MNT" 128M >/dev/null || die "grow"
	"$UMBRACTL" trim "$MNT" >"$T/trim" 2>&1 || grep -q 'takes no space back' "$T/trim" || die "trim: $(cat "$T/trim")"
	cp "$MEM/a" "$MNT/grown" || die "cp after growth"
	pool_remount
	cmp "$MNT/grown" "$MEM/a" || die "after growth"
	pool_finish
}

on /dev/pmem0

need qemu-nbd
modprobe nbd || skip "this kernel has no nbd"
truncate -s 160M "$MEM/image"
mkdir -p /run/lock # of qemu-nbd
qemu-nbd -f raw --discard=unmap -c /dev/nbd0 "$MEM/image" || die "qemu-nbd"
on /dev/nbd0
qemu-nbd -d /dev/nbd0 >/dev/null
