# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Harness of the mounted tests: makes a pool, mounts it, unmounts it and waits, kills its daemon,
# checks it. A test sources this file; it exits 0 when it passes, 77 after `skip`, else it fails.
#
# Environment, set by tools/check, with defaults for a test started by hand:
#   UMBRA_BUILD    build directory, holding inst/ (the programs) and tests/mounted/ (helpers)
#   UMBRA_T        an empty directory for this test; made and removed when not given
#   UMBRA_BACKEND  dax: file on tmpfs, treated as persistent memory; file: plain file; loop: loop device;
#                  devdax, fsdax: real persistent memory, the device and the directory of a DAX mount in
#                  UMBRA_DEVDAX and UMBRA_FSDAX (in a virtual machine: tests/vm)
#   UMBRA_LONG     1: the long form of the test
#   UMBRA_SMOKE    1: a short form, where everything takes ten times as long
#   UMBRA_SEED     seed of whatever is random
#   UMBRA_OPTIONS  mount options, besides those that the test chooses
#
# State is kept in files below $T, so that helpers may call `ctl` for a remount or a kill.

set -u
# In a mount namespace of its own: what others do on the machine cannot keep a mount of ours alive (a
# namespace made elsewhere meanwhile holds a copy of every mount it can see), and nothing is left behind.
if [ -z "${UMBRA_NS:-}" ] && [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
	UMBRA_NS=1 exec unshare -m --propagation private bash "$0" "$@"
fi
export UMBRA_NS=1

LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SRC=$(cd "$LIB/../.." && pwd)
UM_SRC=$SRC
# shellcheck source=../../tools/lib/install.sh
. "$SRC/tools/lib/install.sh"

BUILD=${UMBRA_BUILD:-$SRC/build/check/default}
BACKEND=${UMBRA_BACKEND:-dax}
LONG=${UMBRA_LONG:-0}
SMOKE=${UMBRA_SMOKE:-0}
SEED=${UMBRA_SEED:-1}
HELPERS=$BUILD/tests/mounted
UMBRAFS=$BUILD/inst/bin/umbrafs
UMBRACTL=$BUILD/inst/bin/umbractl
MKFS=$BUILD/inst/sbin/mkfs.umbrafs
FSCK=$BUILD/inst/sbin/fsck.umbrafs
PYTHON=python3
[ -x /usr/bin/python3 ] && PYTHON=/usr/bin/python3
export PYTHONDONTWRITEBYTECODE=1 # of the modules here

if [ -n "${UMBRA_T:-}" ]; then
	T=$UMBRA_T
	OWN_T=
else
	T=$(mktemp -d /var/tmp/umbrafs-test.XXXXXX)
	OWN_T=$T
fi
MNT=$T/mnt
LOG=$T/daemon.log
MEM=$T/mem # a tmpfs: pools of the dax back end, oracles, logs of acknowledged operations
# How long an orderly end may take, seconds.
PATIENCE=${UMBRA_PATIENCE:-60}
# Is the pool a device, which is there before mkfs?
DEVICE=0
case $BACKEND in
dax)
	POOL=$MEM/pool
	export PMEM_IS_PMEM_FORCE=1
	;;
file) POOL=$T/pool ;;
loop)
	POOL=$(cat "$T/loop" 2>/dev/null)
	DEVICE=1
	;;
devdax)
	POOL=${UMBRA_DEVDAX:?}
	DEVICE=1
	;;
fsdax) POOL=${UMBRA_FSDAX:?}/pool ;;
*)
	echo "FAIL: unknown back end $BACKEND"
	exit 1
	;;
esac
export UMBRA_BUILD=$BUILD UMBRA_T=$T UMBRA_BACKEND=$BACKEND UMBRA_LONG=$LONG UMBRA_SMOKE=$SMOKE
CTL=$LIB/ctl

say() {
	printf '%s\n' "$*"
}

# Ends the test as failed, with the end of the daemon's log.
die() {
	if [ -s "$LOG" ]; then
		say "--- end of the daemon's log"
		tail -n 25 "$LOG"
		say "---"
	fi
	say "FAIL: $*"
	exit 1
}

skip() {
	say "SKIP: $*"
	exit 77
}

# long A B [C]: A by default, B with --long, C for a smoke test.
long() {
	if [ "$LONG" = 1 ]; then
		echo "$2"
	elif [ "$SMOKE" = 1 ]; then
		echo "${3:-$1}"
	else
		echo "$1"
	fi
}

need() {
	local c
	for c in "$@"; do
		command -v "$c" >/dev/null || skip "$c is not installed"
	done
}

cleanup() {
	local rc=$?
	trap - EXIT
	cd /
	um_clean_below "$T"
	[ "$BACKEND" != fsdax ] || rm -f "$POOL"
	[ -n "$OWN_T" ] && [ $rc != 1 ] && rm -rf "$OWN_T"
	[ -n "$OWN_T" ] && [ $rc = 1 ] && say "left for inspection: $OWN_T"
	exit $rc
}

# Called by every test, not by ctl.
start() {
	trap cleanup EXIT
	trap 'exit 143' INT TERM HUP
	[ "$(id -u)" = 0 ] || skip "needs root"
	[ -c /dev/fuse ] || skip "/dev/fuse is not here"
	local p
	for p in "$UMBRAFS" "$MKFS" "$FSCK"; do
		[ -x "$p" ] || die "$p is not built"
	done
	mkdir -p "$MNT" "$MEM"
	mount -t tmpfs -o mode=0755,size="${MEM_SIZE:-90%}" umbrafs-test "$MEM" ||
		skip "may not mount here (no CAP_SYS_ADMIN)"
}

# /usr/sbin with our helpers added, as if installed, in this namespace only.
helpers_in_sbin() {
	local sbin p
	sbin=$(readlink -f /sbin)
	mkdir "$MEM/up" "$MEM/work"
	if ! mount -t overlay -o "lowerdir=$sbin,upperdir=$MEM/up,workdir=$MEM/work" overlay "$sbin" 2>/dev/null; then
		cp -a "$sbin" "$MEM/sbin" && mount --bind "$MEM/sbin" "$sbin" || skip "cannot cover $sbin here"
	fi
	for p in "$BUILD"/inst/sbin/*; do
		ln -sf "$p" "$sbin/${p##*/}" || die "ln"
	done
	export PATH="$PATH:/usr/sbin:/sbin" SBIN=$sbin
}

quiet() { # WHAT COMMAND...: succeeds and says nothing
	local what=$1
	shift
	timeout 60 "$@" >"$T/out" 2>&1 </dev/null || die "$what: exit $?: $(head -n2 "$T/out")"
	[ ! -s "$T/out" ] || die "$what: says $(head -n2 "$T/out")"
	say "ok: $what"
}

fails_with() { # WHAT CODE COMMAND...
	local what=$1 code=$2 rc
	shift 2
	timeout 60 "$@" >"$T/out" 2>&1 </dev/null
	rc=$?
	[ $rc = "$code" ] || die "$what: exit $rc, must be $code: $(head -n2 "$T/out")"
	[ -s "$T/out" ] || die "$what: fails without a word"
	say "ok: $what: $(head -n1 "$T/out")"
}

# pool_make SIZE [mkfs option...]
pool_make() {
	local size=$1 dev
	shift
	if [ "$BACKEND" = loop ]; then
		truncate -s "$size" "$MEM/image"
		dev=$(losetup -f --show "$MEM/image" 2>&1) || skip "no loop device: $dev"
		echo "$dev" >"$T/loop"
		POOL=$dev
		"$MKFS" -q "$@" "$POOL" || die "mkfs failed"
	elif [ "$BACKEND" = devdax ]; then
		# Over what the test before left there.
		"$MKFS" -q -f --forget-bad -s "$size" "$@" "$POOL" || die "mkfs failed"
	else
		"$MKFS" -q -s "$size" "$@" "$POOL" || die "mkfs failed"
	fi
}

is_mounted() {
	um_is_mounted "$MNT"
}

# Fails the test if a sanitizer spoke in the daemon's log.
log_ok() {
	if [ -s "$LOG" ] &&
		grep -E 'ERROR: (Address|Leak|Thread)Sanitizer|WARNING: ThreadSanitizer|runtime error:' \
			"$LOG" >"$T/sanitizer"; then
		grep -A25 -m1 -E 'Sanitizer|runtime error:' "$LOG"
		die "sanitizer: $(head -n1 "$T/sanitizer")"
	fi
}

# Starts the daemon on $POOL and waits until the mount answers. pool_try_mount returns its exit code
# when it ends instead.
pool_try_mount() {
	local opts=${1:-}${1:+${UMBRA_OPTIONS:+,}}${UMBRA_OPTIONS:-} i
	rm -f "$T/rc" "$T/pid"
	(
		setsid sh -c 'echo $$ >"$1"; shift; exec "$@"' sh "$T/pid" ${UMBRA_WRAP:-} \
			"$UMBRAFS" "$POOL" "$MNT" -f ${opts:+-o "$opts"}
		echo $? >"$T/rc"
	) >>"$LOG" 2>&1 </dev/null &
	for ((i = 0; i < PATIENCE * 50; i++)); do
		if [ -s "$T/rc" ]; then
			return "$(cat "$T/rc")"
		fi
		if is_mounted; then
			stat -f "$MNT" >/dev/null 2>&1
			return 0
		fi
		sleep 0.02
	done
	return 124
}

pool_mount() {
	pool_try_mount "$@" || die "mount failed with $?"
	echo "${1:-}" >"$T/opts"
}

# Waits for the daemon's end; its exit code is in $T/rc.
pool_wait() {
	local i
	for ((i = 0; i < PATIENCE * 50; i++)); do
		[ -s "$T/rc" ] && return 0
		sleep 0.02
	done
	return 1
}

# Where a daemon that does not end hangs.
stacks() {
	local pid
	pid=$(cat "$T/pid")
	[ -d "/proc/$pid" ] || return 0
	say "--- threads of the daemon, $pid"
	if command -v gdb >/dev/null; then
		timeout 60 gdb -p "$pid" -batch -ex 'thread apply all bt 12' 2>/dev/null | grep -E '^(Thread|#)'
	fi
	cat /proc/"$pid"/task/*/stack 2>/dev/null
}

pool_umount() {
	local i
	for ((i = 0; i < 100; i++)); do
		umount -i "$MNT" 2>"$T/umount.err" && break
		grep -q busy "$T/umount.err" || die "umount: $(cat "$T/umount.err")"
		sleep 0.05
	done
	is_mounted && die "umount: $(cat "$T/umount.err")"
	pool_wait || {
		stacks
		die "the daemon has not ended ${PATIENCE} s after umount"
	}
	log_ok
	[ "$(cat "$T/rc")" = 0 ] || die "the daemon ended with $(cat "$T/rc") after umount"
}

pool_remount() {
	pool_umount
	pool_mount "$(cat "$T/opts" 2>/dev/null)"
}

# As a crash of the daemon: SIGKILL, then the dead mount is taken away.
pool_kill() {
	kill -9 "$(cat "$T/pid")" 2>/dev/null
	pool_wait || die "the daemon survives kill -9 (state $(awk '{ print $3 }' "/proc/$(cat "$T/pid")/stat" 2>/dev/null))"
	umount -l -i "$MNT" 2>/dev/null
	is_mounted && die "the dead mount does not go away"
	log_ok
}

# A pool not in use must be sound; nothing is written.
pool_fsck() {
	local rc
	"$FSCK" -n -f "$POOL" >"$T/fsck.out" 2>&1
	rc=$?
	if [ $rc != 0 ]; then
		head -n 40 "$T/fsck.out"
		die "fsck -n: exit $rc: $(grep -v '^$' "$T/fsck.out" | head -n1)"
	fi
}

pool_kill_check_mount() {
	pool_kill
	pool_fsck
	pool_mount "$(cat "$T/opts" 2>/dev/null)"
}

# A counter of the mounted pool, as umbractl stat shows it.
counter() {
	"$UMBRACTL" stat "$MNT" | awk -v name="$1" '$1 == name { print $2 }'
}

# under OPTIONS TEST [VARIABLE=VALUE...]: runs a test that is made for mounts of any kind, with these mount options and in a
# directory of its own.
under() {
	local options=$1 test=$2 rc
	shift 2
	mkdir -p "$T/under"
	env UMBRA_T="$T/under" UMBRA_OPTIONS="$options" UMBRA_SMOKE="$(long 1 0)" "$@" bash "$LIB/$test" >"$T/under.out" 2>&1
	rc=$?
	[ $rc = 0 ] || [ $rc = 77 ] || { cat "$T/under.out"; die "$test with $options"; }
	say "$test: $(tail -n1 "$T/under.out")"
	rm -rf "$T/under"
}

# Ordinary work never meets a view that is in its way.
no_etxtbsy() {
	[ "$(counter etxtbsy)" = 0 ] || die "a writer was refused: ETXTBSY $(counter etxtbsy) times"
}

# The end of most tests.
pool_finish() {
	pool_umount
	pool_fsck
}

# Seconds with a fraction.
now() {
	date +%s.%N
}
