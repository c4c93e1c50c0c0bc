#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Growing pools: mounted and in use, and not mounted; refusals have a clear message.
# backends: dax file loop
# beside: yes
# seconds: 120 240
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

# For a device the file below is extended, and the kernel is told.
room() {
	if [ "$BACKEND" = loop ]; then
		truncate -s "$1" "$MEM/image" && losetup -c "$POOL" || die "a larger loop device"
	fi
}

# grown PATH SIZE MIB: grows, and this is what it has then.
grown() {
	local out
	out=$("$UMBRACTL" grow "$1" "$2" 2>&1) || die "grow $1 $2: $out"
	[ "$("$UMBRACTL" info --json "$1" | grep -o '"size": *[0-9]*' | grep -o '[0-9]*')" = $(($3 << 20)) ] ||
		die "grow $1 $2: $out, and then $("$UMBRACTL" info "$1" | grep size)"
}

# refused WORDS PATH SIZE
refused() {
	local out words=$1
	shift
	out=$("$UMBRACTL" grow "$@" 2>&1) && die "grow $*: was not refused"
	[[ $out == *"$words"* ]] || die "grow $*: says: $out"
}

pool_make 40M
pool_mount
was=$(stat -f -c %b "$MNT")
mkdir "$MNT/d"
cp /usr/bin/env "$MNT/d/env"
sum=$(sha256sum <"$MNT/d/env")
refused "do not shrink" "$MNT" 32M
refused "usage" "$MNT" 32X
refused "in use" "$POOL" 64M
refused "not on a mounted umbrafs" / 64M
[ "$BACKEND" != loop ] || refused "the device is smaller" "$MNT" 64M
grown "$MNT" 40M 40
grown "$MNT" 47M 40

# A file is written to its end meanwhile, another one mapped: nobody notices.
head -c 12M /dev/urandom >"$MNT/live"
"$PYTHON" - "$MNT/live" "$T/stop" "$T/started" <<'EOF' &
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 8 << 20)
n = 0
open(sys.argv[3], "w").close()
while not os.path.exists(sys.argv[2]) and n < 200000:
    m[(n * 4099) % (8 << 20)] = n & 255
    os.pwrite(fd, b"x" * 4096, 8 << 20 | (n % 1024) * 4096)
    n += 1
m.flush()
EOF
writer=$!
for _ in $(seq 100); do [ -e "$T/started" ] && break; sleep 0.1; done
room 64M
grown "$MNT" 64M 64
[ "$(stat -f -c %b "$MNT")" -gt $((was + 4096)) ] || die "statfs says $(stat -f -c %b "$MNT") blocks, $was before"
room 75M
grown "$MNT" 75M 74
touch "$T/stop"
wait $writer || die "the writer failed"
head -c 40M /dev/urandom >"$MNT/big" || die "the new space cannot be used"
big=$(sha256sum <"$MNT/big")
pool_remount
[ "$(sha256sum <"$MNT/big")" = "$big" ] || die "other bytes after the next mount"
[ "$(sha256sum <"$MNT/d/env")" = "$sum" ] || die "an old file has changed"
room 90M
grown "$MNT" 90M 90
head -c 8M /dev/urandom >"$MNT/last" && sync "$MNT/last" || die "write behind the third seam"
pool_kill
pool_fsck
pool_mount ro
refused "Read-only" "$MNT" 128M
pool_umount

# Not mounted.
room 130M
grown "$POOL" 130M 130
pool_fsck
if [ "$BACKEND" != loop ]; then
	truncate -s 150M "$POOL"
	grown "$POOL" max 150
	# By an ordinary user's hands it is only refused.
	pool_mount allow_other
	chmod 755 "$T" "$MNT"
	setpriv --reuid 65534 --clear-groups "$UMBRACTL" grow "$MNT" 200M 2>"$T/out" && die "nobody may grow a mount"
	grep -q "not permitted" "$T/out" || die "nobody is told: $(cat "$T/out")"
	# Space that the file's host has not: the pool stays, and so does its file.
	mkdir "$T/small"
	mount -t tmpfs -o size=64M small "$T/small"
	"$MKFS" -q -s 40M "$T/small/pool" || die "mkfs on a small tmpfs"
	out=$("$UMBRACTL" grow "$T/small/pool" 200M 2>&1) && die "grew into nothing"
	[[ $out == *"full"* ]] || die "no space: says $out"
	[ "$(stat -c %s "$T/small/pool")" = $((40 << 20)) ] || die "the file stays longer"
	if [ "$BACKEND" = file ]; then
		"$UMBRACTL" grow --sparse "$T/small/pool" 200M >/dev/null || die "sparse growth"
	fi
	"$FSCK" -n -f "$T/small/pool" >/dev/null || die "fsck in the small tmpfs"
	umount "$T/small"
	pool_umount
fi
pool_mount
[ "$(sha256sum <"$MNT/big")" = "$big" ] || die "other bytes at the end"
head -c 30M /dev/zero >"$MNT/more" || die "space of the last growth"
pool_finish
