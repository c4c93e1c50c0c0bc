#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A signal ends the daemon although there are users: one file is constantly read and cloned into, so that at any
# moment reads are in flight and clones wait for their pages.
# backends: dax
# long-backends: dax file
# seconds: 120 300
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

cat >"$T/users.py" <<'EOF'
import os, sys, threading
sys.path.insert(0, sys.argv[2])
import door
mnt = sys.argv[1]

def clone(src, dst, at=4096):
    door.clone(src, dst, 8191 * 8192, at)

# Many extents, and no offset in common: a clone takes a while.
src = os.open(mnt + "/src", os.O_RDWR | os.O_CREAT)
for i in range(8192):
    os.pwrite(src, b"x" * 4096, i * 8192)
dst = os.open(mnt + "/dst", os.O_RDWR | os.O_CREAT)
clone(src, dst)

def until_error(step):
    try:
        while True:
            step()
    except OSError:
        pass

def read():
    os.posix_fadvise(dst, 0, 0, os.POSIX_FADV_DONTNEED)
    for off in range(0, 64 << 20, 4 << 20):
        os.pread(dst, 4096, off)

threads = [threading.Thread(target=until_error, args=(step,))
           for step in (read, read, read, lambda: clone(src, dst), lambda: clone(src, dst, 8192),
                        lambda: clone(src, dst, 12288), lambda: clone(src, dst, 16384))]
for thread in threads:
    thread.start()
print("on", flush=True)
EOF

pool_make 128M
for ((round = 0; round < $(long 1 10); round++)); do
	pool_mount
	"$PYTHON" "$T/users.py" "$MNT" "$LIB" >"$T/users.out" 2>&1 &
	users=$!
	for ((i = 0; i < 100; i++)); do
		[ -s "$T/users.out" ] && break
		sleep 0.1
	done
	kill -TERM "$(cat "$T/pid")"
	for ((i = 0; i < 40 * 5; i++)); do
		[ -s "$T/rc" ] && break
		sleep 0.2
	done
	[ -s "$T/rc" ] || {
		cat "/proc/$(cat "$T/pid")"/task/*/stack
		kill -9 "$(cat "$T/pid")" # or the users would stay
		die "the daemon has not ended 40 s after the signal"
	}
	[ "$(cat "$T/rc")" = 0 ] || die "the daemon ended with $(cat "$T/rc")"
	for ((i = 0; i < 50; i++)); do
		kill -0 $users 2>/dev/null || break
		sleep 0.1
	done
	kill -0 $users 2>/dev/null && die "users do not come back"
	log_ok
	pool_fsck
done
