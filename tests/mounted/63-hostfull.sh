#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A sparse pool whose host runs full: writers get ENOSPC, the daemon survives, the pool stays consistent, files can be
# removed, and everything continues when there is space again. On a small tmpfs, and on a small ext4 on a loop device.
# backends: file dax
# beside: yes
# seconds: 180 300
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
HOST=$T/host
mkdir "$HOST"

# full NAME: on the host that is mounted.
full() {
	local n=0 sum ret
	POOL=$HOST/pool
	"$MKFS" -q -s 400M --sparse "$POOL" || die "$1: mkfs --sparse"
	[ "$(du -m "$POOL" | cut -f1)" -lt 60 ] || die "$1: a sparse pool takes $(du -m "$POOL" | cut -f1) MiB at once"
	pool_mount
	head -c 3M /dev/urandom >"$MNT/kept" && sync "$MNT/kept" || die "$1: the first file"
	sum=$(sha256sum <"$MNT/kept")
	# Data, small files and directories until the host has nothing left.
	while [ $n -lt 400 ]; do
		mkdir "$MNT/d$n" 2>"$T/err" &&
			for i in 1 2 3 4 5 6 7 8; do echo "$n $i" >"$MNT/d$n/small$i" || break; done 2>"$T/err" &&
			head -c 1M /dev/urandom >"$MNT/d$n/large" 2>"$T/err" && sync "$MNT/d$n/large" 2>"$T/err" || break
		n=$((n + 1))
	done
	[ $n -lt 400 ] || die "$1: the host has not run full"
	grep -q "No space left" "$T/err" || die "$1: not ENOSPC: $(cat "$T/err")"
	say "$1: full after $n rounds; $(df -m --output=avail "$HOST" | tail -n1) MiB left below"
	# Everything at once, as hard as it goes: nobody dies of it.
	"$HELPERS/stress" "$MNT" "$(long 3 15)" 4 >"$T/stress.out" 2>&1
	kill -0 "$(cat "$T/pid")" || die "$1: the daemon died"
	log_ok
	[ "$(sha256sum <"$MNT/kept")" = "$sum" ] || die "$1: other bytes in a file from before"
	rm -rf "$MNT"/d1* || die "$1: removing on a full host"
	head -c 2M /dev/urandom >"$MNT/again" && sync "$MNT/again" || die "$1: what was removed cannot be used again"
	pool_kill
	"$FSCK" -n -f "$POOL" >"$T/fsck.out" 2>&1 || die "$1: fsck -n after kill -9: $(cat "$T/fsck.out")"
	pool_mount
	[ "$(sha256sum <"$MNT/kept")" = "$sum" ] || die "$1: other bytes after kill -9"
	if "$UMBRACTL" trim "$MNT" >"$T/trim.out" 2>&1; then
		say "$1: $(cat "$T/trim.out"); $(df -m --output=avail "$HOST" | tail -n1) MiB left below"
	else
		die "$1: trim: $(cat "$T/trim.out")"
	fi
	# With more below it goes on.
	$2
	for i in 1 2 3 4 5; do
		head -c 4M /dev/urandom >"$MNT/more$i" && sync "$MNT/more$i" || die "$1: no space though the host has some"
	done
	pool_finish
	umount "$HOST"
}

larger_tmpfs() {
	mount -o remount,size=160M "$HOST" || die "a larger tmpfs"
}
mount -t tmpfs -o size=100M small "$HOST" || die "tmpfs"
full tmpfs larger_tmpfs

if [ "$BACKEND" = file ] && command -v mkfs.ext4 >/dev/null; then
	larger_ext4() {
		rm "$HOST/ballast" || die "ballast"
	}
	truncate -s 160M "$MEM/ext4"
	mkfs.ext4 -q -F "$MEM/ext4" && mount -o loop "$MEM/ext4" "$HOST" || die "ext4 on a loop device"
	fallocate -l 40M "$HOST/ballast" || die "ballast"
	full ext4 larger_ext4
fi
