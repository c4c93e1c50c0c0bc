#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# FUSE over io_uring: the option and the kernel's switch; many requests that wait at once; kill -9, unmounting and
# signals meanwhile; and other tests with it.
# backends: file
# long-backends: dax file loop
# seconds: 200 1800
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

switch=/sys/module/fuse/parameters/enable_uring
[ -e $switch ] || skip "this kernel has no FUSE over io_uring (Linux 6.14)"
before=$(cat $switch)
restore() {
	local rc=$?
	echo "$before" >$switch
	(exit $rc)
	cleanup
}
trap restore EXIT
unset UMBRA_OPTIONS # the option is what is tested

threads() {
	counter uring_threads
}

pool_make 256M
say "the switch and the option"
echo N >$switch
pool_mount io_uring
[ "$(threads)" -ge "$(nproc)" ] || {
	grep -q 'no FUSE over io_uring here' "$LOG" || die "not used, and not said why: $(cat "$LOG")"
	pool_finish
	skip "$(grep -o 'no FUSE over io_uring here ([^)]*)' "$LOG")"
}
[ "$(cat $switch)" = Y ] || die "not turned on"
echo x >"$MNT/file"
[ "$(cat "$MNT/file")" = x ] || die "a file"
pool_umount
pool_mount
[ "$(threads)" = 0 ] || die "used without the option"
pool_umount

say "many at once"
pool_mount io_uring
cat >"$T/crowd.py" <<'END'
import os, sys, threading
top, n, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
bad = []
def work(i):
    want = bytearray()
    fd = os.open("%s/c%d" % (top, i), os.O_RDWR | os.O_CREAT)
    for r in range(rounds):
        block = bytes([i % 251 + 1]) * 4096
        os.pwrite(fd, block, r * 8192)
        os.fsync(fd)
        want += block
        if os.pread(fd, 1 << 20, 0) != want:
            raise OSError("content after round %d" % r)
        want += bytes(4096)
    os.close(fd)
def attempt(i):
    try:
        work(i)
    except OSError as e:
        bad.append("c%d: %s" % (i, e))
t = [threading.Thread(target=attempt, args=(i,)) for i in range(n)]
[x.start() for x in t]
[x.join() for x in t]
sys.exit("\n".join(bad) if bad else 0)
END
was=$(threads)
timeout 100 "$PYTHON" "$T/crowd.py" "$MNT" 64 20 || die "64 that write and sync"
say "$was threads, then $(threads)"
# On DAX an fsync has nothing to wait for.
[ "$BACKEND" = dax ] || [ "$(threads)" -ge $((was + 8)) ] || die "hardly any thread was added"
pool_remount
for i in 0 17 63; do
	"$PYTHON" - "$MNT/c$i" $i <<'END' || die "c$i is not what was written"
import sys
data, want = open(sys.argv[1], "rb").read(), bytes([int(sys.argv[2]) % 251 + 1]) * 4096
sys.exit(any(data[at:at + 4096] != want for at in range(0, len(data), 8192)))
END
done

say "content of every shape"
"$PYTHON" - "$MNT/shapes" <<'END' || die "content"
import mmap, os, random, sys
random.seed(7)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
size = 5 << 20
model = bytearray(size)
os.ftruncate(fd, size)
for i in range(300): # islands of data, of all alignments, between holes
    off = random.randrange(size)
    data = os.urandom(min(random.choice((1, 4096, 4097, 70000)), size - off))
    model[off:off + len(data)] = data
    assert os.pwrite(fd, data, off) == len(data)
os.fsync(fd)
for direct in (0, os.O_DIRECT):
    r = os.open(sys.argv[1], os.O_RDONLY | direct)
    for i in range(400):
        step = 4096 if direct else 1
        off = random.randrange(size) // step * step
        buf = mmap.mmap(-1, random.choice((4096, 65536, 1 << 20)))
        n = os.preadv(r, [buf], off)
        assert n == min(len(buf), size - off), (direct, off, n)
        assert buf[:n] == model[off:off + n], (direct, off, n)
        if i % 100 == 0:
            open("/proc/sys/vm/drop_caches", "w").write("1")
    os.close(r)
END

say "a busy mount"
exec 9<"$MNT/shapes"
umount -i "$MNT" 2>/dev/null && die "unmounted while in use"
[ "$(head -c 1 <&9 | wc -c)" = 1 ] || die "no reading after that"
kill "$(cat "$T/pid")"
for ((i = 0; i < 100; i++)); do
	is_mounted || break
	sleep 0.05
done
is_mounted && die "SIGTERM does not unmount"
exec 9<&-
pool_wait || die "SIGTERM does not end it"
log_ok
pool_fsck

say "kill -9"
for ((round = 0; round < $(long 6 60); round++)); do
	pool_mount io_uring
	rm -f "$MNT"/k*
	for p in 1 2 3 4; do
		(
			for ((i = 0; ; i++)); do
				echo $i >"$MNT/k$p.$i" || exit
				echo $i >"$T/k$p"
			done
		) 2>/dev/null &
	done
	sleep "0.$((RANDOM % 7 + 1))"
	kill -9 "$(cat "$T/pid")"
	for ((i = 0; i < 200; i++)); do
		[ -z "$(jobs -rp)" ] && break
		sleep 0.05
	done
	[ -z "$(jobs -rp)" ] || die "users of the mount hang"
	pool_kill
	pool_fsck
	pool_mount io_uring
	for p in 1 2 3 4; do
		last=$(cat "$T/k$p" 2>/dev/null) || continue
		[ "$(cat "$MNT/k$p.$last")" = "$last" ] || die "k$p.$last was acknowledged and is lost"
	done
	rm -f "$T"/k?
	pool_finish
done

under io_uring 56-direct.sh # whose requests wait for each other
under io_uring 21-data.sh
[ "$LONG" = 0 ] && exit 0
under io_uring 10-posix.sh
under io_uring 70-stress.sh
