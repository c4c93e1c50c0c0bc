#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Bad input: a clear message, the right exit status, nothing changed.
# backends: file
# beside: yes
# seconds: 300 1200
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
cd "$T" || die "cd"
bad=0

# refused NAME CODES PATTERN COMMAND...: ends with one of the codes; says PATTERN, in one line or two (why,
# and what was not done).
refused() {
	local name=$1 codes=$2 pattern=$3 rc
	shift 3
	timeout 60 "$@" >out 2>err </dev/null
	rc=$?
	if ! grep -qw -- "$rc" <<<"$codes"; then
		say "$name: exit code $rc, must be one of $codes: $(cat out err | head -n 3)"
		bad=$((bad + 1))
	elif ! cat err out | grep -qiE -- "$pattern"; then
		say "$name: does not say /$pattern/ but: $(cat err out | head -n 3)"
		bad=$((bad + 1))
	elif [ "$(grep -c . err)" -gt "${LINES_MAX:-2}" ]; then
		say "$name: too many lines: $(cat err)"
		bad=$((bad + 1))
	else
		say "ok: $name: $(head -n1 err)"
	fi
	if is_mounted; then
		say "$name: mounted all the same"
		umount -l "$MNT"
		bad=$((bad + 1))
	fi
}

# Not bad at all, but as often asked for.
for program in "$UMBRAFS" "$UMBRACTL" "$MKFS" "$FSCK" "${MKFS%/*}"/{mount,umount}.umbrafs; do
	LINES_MAX=0 refused "${program##*/} --version" 0 "^${program##*/} [0-9]+\\.[0-9]" "$program" --version
	LINES_MAX=0 refused "${program##*/} --help" 0 "^usage: ${program##*/} " "$program" --help
done

same() {
	cmp -s "$1" "$2" || {
		say "$3: the file was changed"
		bad=$((bad + 1))
	}
}

fresh() {
	rm -f pool
	"$MKFS" -q -s 32M pool || die "mkfs"
}

POOL=$T/pool
daemon() {
	echo "$UMBRAFS" "$1" "$MNT"
}

# ---- not a pool ------------------------------------------------------------------------------------
head -c 40000000 /dev/zero >zeros
cp zeros zeros.orig
refused "zeros" "32 1" "umbrafs pool|not a pool" "$UMBRAFS" "$T/zeros" "$MNT"
refused "fsck of zeros" "8 16" "umbrafs pool|not a pool" "$FSCK" -n zeros
refused "fsck -y of zeros" "4 8 16" "umbrafs pool|not a pool" "$FSCK" -y zeros
refused "umbractl info of zeros" "1" "umbrafs pool|not a pool" "$UMBRACTL" info zeros
same zeros zeros.orig "zeros"
echo "just text" >text
refused "a short text" "32 1" "pool" "$UMBRAFS" "$T/text" "$MNT"
: >empty
refused "an empty file" "32 1" "pool" "$UMBRAFS" "$T/empty" "$MNT"
refused "a missing file" "32 1" "No such file" "$UMBRAFS" "$T/missing" "$MNT"
refused "fsck of a missing file" "8 16" "No such file" "$FSCK" -n "$T/missing"
refused "a directory" "32 1" "directory|not a" "$UMBRAFS" "$T" "$MNT"
mkfifo fifo
refused "a fifo" "32 1" "not a|fifo|regular" "$UMBRAFS" "$T/fifo" "$MNT"
refused "mkfs on a directory" "1" "directory|not a" "$MKFS" -s 32M "$T/mnt"
refused "mkfs in a missing directory" "1" "No such file" "$MKFS" -s 32M "$T/missing/pool"
if command -v mkfs.ext4 >/dev/null; then
	truncate -s 32M ext4
	mkfs.ext4 -q -F ext4
	cp ext4 ext4.orig
	refused "mount of ext4" "32 1" "pool" "$UMBRAFS" "$T/ext4" "$MNT"
	refused "mkfs over ext4" "1" "ext4" "$MKFS" ext4
	same ext4 ext4.orig "ext4"
	"$MKFS" -q -f ext4 || die "mkfs -f over ext4"
fi

# ---- not a whole pool -------------------------------------------------------------------------------
fresh
cp pool cut
truncate -s 20M cut
cp cut cut.orig
refused "a truncated pool" "32 1" "short|truncat|smaller" "$UMBRAFS" "$T/cut" "$MNT"
refused "fsck of a truncated pool" "4 8" "short|truncat|smaller" "$FSCK" -n cut
same cut cut.orig "truncated pool"
"$HELPERS/poke" pool version 99
cp pool pool.orig
refused "a future version" "32 1" "version" "$UMBRAFS" "$POOL" "$MNT"
refused "fsck -y of a future version" "8 16 4" "version" "$FSCK" -y pool
same pool pool.orig "future version"
fresh
"$HELPERS/poke" pool incompat 0x8000000000
cp pool pool.orig
refused "an unknown incompat bit" "32 1" "feature|incompat" "$UMBRAFS" "$POOL" "$MNT"
refused "fsck -y of an unknown incompat bit" "8 16 4" "feature|incompat" "$FSCK" -y pool
same pool pool.orig "incompat"
fresh
"$HELPERS/poke" pool ro_compat 0x100
cp pool pool.orig
pool_mount
grep -qi "read-only" "$LOG" || die "an unknown ro_compat bit: the read-only mount is not said"
touch "$MNT/x" 2>/dev/null && die "an unknown ro_compat bit: written all the same"
pool_umount
pool_mount ro
[ -d "$MNT" ] && ls "$MNT" >/dev/null || die "an unknown ro_compat bit, ro: cannot be read"
pool_umount
same pool pool.orig "ro_compat"
fresh
"$HELPERS/poke" pool compat 0x100
pool_mount
pool_umount
fresh
"$HELPERS/poke" pool damage both
cp pool pool.orig
refused "both superblocks bad" "32 1" "superblock" "$UMBRAFS" "$POOL" "$MNT"
refused "fsck -n with both superblocks bad" "4 8" "superblock" "$FSCK" -n pool
same pool pool.orig "both superblocks bad"
for which in first second; do
	fresh
	pool_mount
	echo hello >"$MNT/f"
	pool_umount
	"$HELPERS/poke" pool damage $which
	LINES_MAX=9 refused "fsck -n with the $which superblock bad" "4" "superblock" "$FSCK" -n -f pool
	: >"$LOG"
	pool_mount
	[ "$(cat "$MNT/f")" = hello ] || die "$which superblock bad: content"
	pool_umount
	grep -qi superblock "$LOG" || die "the repair of the $which superblock was not said"
	pool_fsck
done

# ---- in use ------------------------------------------------------------------------------------------
fresh
pool_mount
mkdir -p other
refused_mounted() {
	local rc
	timeout 60 "${@:4}" >out 2>err </dev/null
	rc=$?
	grep -qw -- "$rc" <<<"$2" && cat err out | grep -qiE "$3" && say "ok: $1: $(head -n1 err)" && return
	say "$1: exit $rc: $(cat err out)"
	bad=$((bad + 1))
}
refused_mounted "the same pool on another directory" "32 16 1" "use|mounted|busy" "$UMBRAFS" "$POOL" "$T/other" -f
refused_mounted "mkfs of a mounted pool" "1" "use|mounted|busy" "$MKFS" -s 32M pool
refused_mounted "fsck -y of a mounted pool" "8 16" "use|mounted|busy" "$FSCK" -y pool
refused_mounted "the same pool on the same directory" "32 16 1" "use|mounted|busy" "$UMBRAFS" "$POOL" "$MNT"
echo still >"$MNT/works" || die "the mount suffered"
pool_finish

# ---- mount points and options ------------------------------------------------------------------------
refused "a missing mount point" "32 1" "No such file|mount point" "$UMBRAFS" "$POOL" "$T/nowhere"
refused "a mount point that is a file" "32 1" "not a directory" "$UMBRAFS" "$POOL" "$T/text"
refused "an unknown option" "1 32" "nonsense" "$UMBRAFS" "$POOL" "$MNT" -o nonsense
refused "a bad value" "1 32" "data" "$UMBRAFS" "$POOL" "$MNT" -o data=sideways
refused "dax" "1 32" "dax" "$UMBRAFS" "$POOL" "$MNT" -o dax
LINES_MAX=40 refused "no arguments" "1" "usage" "$UMBRAFS"
LINES_MAX=40 refused "an unknown switch" "1" "usage|option" "$UMBRAFS" --nonsense
LINES_MAX=40 refused "mkfs: unknown switch" "1" "usage|option" "$MKFS" --nonsense
LINES_MAX=40 refused "fsck: unknown switch" "16" "usage|option" "$FSCK" --nonsense
refused "mkfs: nonsense as size" "1" "size|12Q" "$MKFS" -s 12Q "$T/new"
refused "mkfs: a pool too small" "1" "at least" "$MKFS" -s 4M "$T/new"
refused "mkfs: a size beyond what there is" "1" "large|space|big" "$MKFS" -s 9000000T "$T/new"
refused "mkfs: a label too long" "1" "longer than 64" "$MKFS" -s 32M -L "$(printf 'x%.0s' {1..70})" "$T/new"
refused "mkfs: not a UUID" "1" "uuid" "$MKFS" -s 32M -U nonsense "$T/new"
[ ! -e new ] || die "a refused mkfs left a file behind"
mkdir small
mount -t tmpfs -o size=8M small small
refused "mkfs: no room for the smallest pool" "1" "space" "$MKFS" -s 32M "$T/small/pool"
[ ! -e small/pool ] || die "mkfs without room left a file behind"
umount small

# ---- what the machine does not give ---------------------------------------------------------------------
refused "no /dev/fuse" "32 1" "/dev/fuse" unshare -m sh -c \
	'mount -t tmpfs t /dev && exec "$@"' sh "$UMBRAFS" "$POOL" "$MNT"
chmod 0666 pool
mkdir -p userdir && chmod 0777 userdir
LINES_MAX=3 refused "/dev/fuse not permitted" "32 1" "permi|fuse" unshare -m sh -c \
	'mount -t tmpfs t /mnt && mknod -m 0600 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse && exec "$@"' \
	sh setpriv --reuid 65534 --regid 65534 --clear-groups "$UMBRAFS" "$POOL" "$T/userdir"
LINES_MAX=3 refused "fusermount3 missing" "32 1" "fusermount3" unshare -m sh -c \
	'mount -t tmpfs t /mnt && mknod -m 0666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse &&
	mount --bind /dev/null "$(command -v fusermount3)" && exec "$@"' \
	sh setpriv --reuid 65534 --regid 65534 --clear-groups "$UMBRAFS" "$POOL" "$T/userdir"
# A pool that cannot be written is mounted read-only.
mkdir ro && mount --bind "$T" ro && mount -o remount,bind,ro ro || die "bind"
POOL=$T/ro/pool
pool_mount
touch "$MNT/x" 2>err && die "a read-only pool was written"
grep -qi 'read-only' err || die "a read-only pool: $(cat err)"
pool_umount
umount ro
POOL=$T/pool
[ $bad = 0 ] || die "$bad cases"
pool_fsck

# ---- random bytes in the metadata ------------------------------------------------------------------------
rm pool
"$MKFS" -q -s 32M --metadata=single pool || die "mkfs"
pool_mount
mkdir "$MNT/a" "$MNT/a/b"
for ((i = 0; i < 300; i++)); do
	head -c $((i * 97 % 9000)) /dev/urandom >"$MNT/a/file-$i"
done
cp --reflink=auto "$MNT/a/file-99" "$MNT/clone"
# A limit of the shell that mounts is lifted, or said to be the reason.
pool_umount
if (ulimit -f 1024 && pool_try_mount >"$T/out"); then
	say "ok: a limit on the size of files is lifted"
elif grep -q 'limit on the size of files allows: raise' "$LOG"; then
	say "ok: $(tail -n1 "$LOG")"
	pool_mount
else
	die "a limit on the size of files: $(tail -n1 "$LOG")"
fi
dd if=/dev/zero of="$MNT/zeros" bs=1M count=12 conv=fsync status=none || die "a limit on the size of files"
rm "$MNT/zeros"
head -c 5000000 /dev/urandom >"$MNT/large"
setfattr -n user.x -v "$(printf 'v%.0s' {1..3000})" "$MNT/large" 2>/dev/null
pool_umount
cp pool sound
rounds=$(long 25 400)
export UBSAN_OPTIONS ASAN_OPTIONS
for ((i = 1; i <= rounds; i++)); do
	cp --sparse=always sound pool
	"$HELPERS/poke" pool noise $((SEED * 1000 + i)) $((i % 5 + 1)) >noise.out
	cp --sparse=always pool noisy
	timeout 60 "$FSCK" -n -f pool >fsck.out 2>&1
	rc=$?
	case $rc in 0 | 4 | 8) ;; *) die "round $i ($(tr '\n' ' ' <noise.out)): fsck -n ended with $rc: $(tail -n1 fsck.out)" ;; esac
	cmp -s pool noisy || die "round $i: fsck -n wrote"
	if pool_try_mount; then
		# Errors are fine; crashes and hangs are not.
		timeout 60 sh -c 'cd "$1" && ls -lR . && find . -type f -exec cat {} + && getfattr -dR . &&
			rm -rf a/file-1* && echo x >new && mv large a/ && truncate -s 100 a/large && df .' \
			sh "$MNT" >walk.out 2>&1
		rc=$?
		[ $rc != 124 ] || die "round $i ($(tr '\n' ' ' <noise.out)): a hang"
		[ ! -s "$T/rc" ] || die "round $i ($(tr '\n' ' ' <noise.out)): the daemon died: $(cat "$T/rc")"
		pool_umount
	else
		rc=$(cat "$T/rc")
		[ "$rc" -lt 64 ] || die "round $i ($(tr '\n' ' ' <noise.out)): the mount ended with $rc"
	fi
	timeout 60 "$FSCK" -y -f pool >fsck.out 2>&1
	rc=$?
	case $rc in
	0 | 1)
		pool_fsck
		;;
	4 | 8) ;;
	*) die "round $i ($(tr '\n' ' ' <noise.out)): fsck -y ended with $rc: $(tail -n1 fsck.out)" ;;
	esac
done
say "$rounds noisy pools"
