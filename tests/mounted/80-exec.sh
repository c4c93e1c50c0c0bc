#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# umbractl exec: the remap ioctls and FIEMAP behave as on XFS, and the command does not notice its wrapper.
# backends: dax
# long-backends: dax file loop
# seconds: 180 900
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
[ -x "$UMBRACTL" ] || die "umbractl is not built"
need cp filefrag unshare timeout

# expect WHAT WANTED GOT
expect() {
	[ "$2" = "$3" ] || die "$1: expected \"$2\", got \"$3\""
}

# A kernel without the listener, or a container that has one already, is no fault of ours.
"$UMBRACTL" exec true 2>"$T/probe" || skip "$(cat "$T/probe")"

pool_make 512M
pool_mount
chmod 755 "$T"
chmod 777 "$MNT"

say "every case answers as XFS does"
"$UMBRACTL" exec "$PYTHON" "$LIB/test_exec_cases.py" "$MNT" >"$T/cases" || die "the cases stopped early"
diff -u "$LIB/test_exec_cases.expected" "$T/cases" || die "cases differ from XFS"

say "another filesystem is left alone"
mkdir -m 777 "$MEM/other"
"$PYTHON" "$LIB/test_exec_cases.py" "$MEM/other" >"$T/plain"
"$UMBRACTL" exec "$PYTHON" "$LIB/test_exec_cases.py" "$MEM/other" >"$T/wrapped"
diff -u "$T/plain" "$T/wrapped" || die "the wrapper changes what tmpfs answers"

# All that follows runs among processes of its own, so that it can look for them and end them by name.
cat >"$T/inner" <<'END'
set -u
CTL=$1 MNT=$2 MODE=$3 HELPERS=$4 LONG=$5
fail() { echo "FAIL: $MODE: $*"; exit 1; }
run() { "$CTL" exec ${MODE:+$MODE} "$@"; }
head -c 3000000 /dev/urandom >"$MNT/a"

run cp --reflink=always "$MNT/a" "$MNT/b" || fail "cp --reflink=always"
cmp "$MNT/a" "$MNT/b" || fail "the clone differs"
run filefrag -v "$MNT/b" | grep -q shared || fail "filefrag does not say shared"
cp --reflink=always "$MNT/a" "$MNT/c" 2>/dev/null && fail "it works without the wrapper too: this test shows nothing"

run sh -c 'exit 7'; [ $? = 7 ] || fail "exit status"
for sig in TERM KILL INT SEGV; do
	(ulimit -c 0; run bash -c "kill -$sig \$\$" 2>/dev/null; exit $?)
	[ $? = $((128 + $(kill -l $sig))) ] || fail "status after SIG$sig"
done
run /nonexistent 2>/dev/null; [ $? = 127 ] || fail "status of a command that is not there"
run "$MNT/a" 2>/dev/null; [ $? = 126 ] || fail "status of what is no program"
[ "$(echo in | run cat)" = in ] || fail "standard input"

"$CTL" exec ${MODE:+$MODE} sleep 60 & pid=$!
sleep 0.3; kill -TERM $pid; wait $pid 2>/dev/null
[ $? = 143 ] || fail "a signal to the wrapper"
sleep 0.2
pgrep -x sleep >/dev/null && fail "the command outlives its signal"

start=$(date +%s)
run bash -c "(sleep 2; cp --reflink=always $MNT/a $MNT/late) & exit 3"
[ $? = 3 ] || fail "status with a background process"
[ $(($(date +%s) - start)) -lt 2 ] || fail "waits for a background process"
sleep 3
cmp "$MNT/a" "$MNT/late" || fail "a process that outlives the command is not served"

run "$CTL" exec cp --reflink=always "$MNT/a" "$MNT/d" || fail "nested"

run "$HELPERS/test_exec_clone" "$MNT" 48 $((LONG ? 500 : 20)) || fail "threads"
run "$HELPERS/test_exec_clone_static" "$MNT" 8 20 || fail "a static binary"
for i in $(seq $((LONG ? 100 : 10))); do
	run timeout -s KILL 0.1 "$HELPERS/test_exec_clone" "$MNT" 16 100000 >/dev/null 2>&1
done
run "$HELPERS/test_exec_clone" "$MNT" 4 10 || fail "after callers were killed"

# The supervisor dies: an error, no waiting, and a clear refusal to nest.
timeout 10 "$CTL" exec ${MODE:+$MODE} bash -c '
	kill -9 $(pgrep -n -x umbractl-superv); sleep 0.3
	cp --reflink=always '"$MNT/a $MNT/e"' 2>/dev/null && exit 10
	'"$CTL"' exec true 2>/dev/null; [ $? = 125 ] || exit 11
	exit 12' 2>/dev/null
rc=$?
# With --relay the supervisor is what the wrapper waits for, so its death is the wrapper's failure.
[ $rc = 12 ] || { [ -n "$MODE" ] && [ $rc = 125 ]; } || fail "a dead supervisor: $rc"
sleep 0.5
pgrep -x umbractl-superv -r S,R,D >/dev/null && fail "a supervisor is left over"
exit 0
END
for mode in '' --relay; do
	say "the command notices nothing ${mode:+($mode)}"
	timeout 300 unshare -p -f --mount-proc --kill-child \
		bash "$T/inner" "$UMBRACTL" "$MNT" "$mode" "$HELPERS" "$LONG" || die "see above"
done

say "an ordinary user, with and without a listener's privileges"
chmod 600 "$MNT/a"
setpriv --reuid 65534 --regid 65534 --clear-groups \
	"$UMBRACTL" exec -v cp --reflink=always "$MNT/a" "$MNT/user" 2>"$T/said" && die "a user read root's file"
chmod 644 "$MNT/a"
mkdir -m 777 "$MNT/u"
setpriv --reuid 65534 --regid 65534 --clear-groups \
	"$UMBRACTL" exec -v cp --reflink=always "$MNT/a" "$MNT/u/b" 2>"$T/said" || die "as a user: $(cat "$T/said")"
grep -q no_new_privs "$T/said" || die "-v does not mention no_new_privs: $(cat "$T/said")"
"$UMBRACTL" exec grep -q "^NoNewPrivs:.*0$" /proc/self/status || die "no_new_privs is set for root"

say "--as-xfs changes the type of umbrafs files, by path and by descriptor, and of nothing else"
type_of() { "$PYTHON" -c '
import ctypes, os, sys
libc, buf = ctypes.CDLL(None), (ctypes.c_long * 32)()
os.chdir(sys.argv[2])
path = sys.argv[3].encode()
r = libc.statfs(path, buf) if sys.argv[1] == "path" else libc.fstatfs(os.open(path, os.O_RDONLY), buf)
print(hex(buf[0]) if r == 0 else "failed")' "$@"; }
export -f type_of
export PYTHON
for how in path fd; do
	expect "$how, absolute" 0x58465342 "$("$UMBRACTL" exec --as-xfs bash -c "type_of $how / $MNT/a")"
	expect "$how, relative" 0x58465342 "$("$UMBRACTL" exec --as-xfs bash -c "type_of $how $MNT a")"
	expect "$how, tmpfs" 0x1021994 "$("$UMBRACTL" exec --as-xfs bash -c "type_of $how / $MEM/other")"
	expect "$how, without it" 0x65735546 "$("$UMBRACTL" exec bash -c "type_of $how / $MNT/a")"
done
expect "a missing file" failed "$("$UMBRACTL" exec --as-xfs bash -c "type_of path $MNT missing")"

say "mount, clone, unmount, all inside the wrapper"
pool_umount
cat >"$T/mounts" <<'END'
for i in $(seq "$4"); do
	"$1" "$2" "$3" || exit 1
	cp --reflink=always "$3/a" "$3/m.$i" || exit 2
	filefrag "$3/m.$i" >/dev/null || exit 3
	umount -i "$3" || exit 4
done
END
timeout 300 "$UMBRACTL" exec bash "$T/mounts" "$UMBRAFS" "$POOL" "$MNT" "$(long 10 100)" ||
	die "inside the wrapper: step $? failed (4: umount was busy)"
pool_mount

say "a long clone ends when its caller is killed"
cat >"$T/long.py" <<'END'
# Doubles a file of one block by cloning it behind itself, 21 times: the last ones take long.
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
os.write(fd, b"x" * 4096)
size = 4096
while size < 4096 << 21:
    fcntl.ioctl(fd, 0x4020940D, struct.pack("qQQQ", fd, 0, size, size))  # FICLONERANGE
    size *= 2
END
"$UMBRACTL" exec timeout -s KILL 1 "$PYTHON" "$T/long.py" "$MNT/long"
rc=$?
[ $rc = 137 ] || [ $rc = 0 ] || die "the doubling failed: $rc"
for i in $(seq 20); do
	umount -i "$MNT" 2>/dev/null && break
	[ "$i" -lt 20 ] || die "still busy 2 s after the caller was killed"
	sleep 0.1
done
pool_wait
pool_mount
expect "shared blocks" "$(stat -c %b "$MNT/a")" "$(stat -c %b "$MNT/m.1")"
pool_finish
