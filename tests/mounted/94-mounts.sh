#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A pool on several mount points, and remounts from read-only to writable and back.
# backends: file
# long-backends: dax file loop
# vm: long
# seconds: 180 300
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
helpers_in_sbin
SECOND=$T/second
mkdir "$SECOND" "$T/third"

daemons() {
	um_daemons_below "$T" | wc -l
}

# The daemon is gone, and its guardian: nobody has the pool.
ended() {
	timeout 30 flock "$POOL" true || die "$1: the pool is still locked"
	[ "$(daemons)" = 0 ] || die "$1: the daemon is still there"
}

options() { # DIR: of that mount
	findmnt -n -o VFS-OPTIONS "$1"
}

mounts() { # how many of the pool there are
	findmnt -n -o TARGET -S "$POOL" | wc -l
}

# ---- a second mount --------------------------------------------------------------------------------
pool_make 96M
quiet "mount" mount -t fuse.umbrafs -o noatime,commit=7 "$POOL" "$MNT"
echo hello >"$MNT/file"
mkdir "$MNT/dir" "$MNT/inside"
quiet "a second mount" mount -t fuse.umbrafs "$POOL" "$SECOND"
[ "$(daemons)" = 1 ] || die "$(daemons) daemons for two mounts"
[ "$(stat -c %d:%i "$MNT/file")" = "$(stat -c %d:%i "$SECOND/file")" ] || die "the two are not one filesystem"
[ "$(findmnt -n -o FSTYPE,SOURCE "$MNT")" = "$(findmnt -n -o FSTYPE,SOURCE "$SECOND")" ] || die "shown differently"
echo there >"$SECOND/there"
[ "$(cat "$MNT/there")" = there ] || die "what was written to one is not in the other"
[ "$("$UMBRACTL" info --json "$MNT")" = "$("$UMBRACTL" info --json "$SECOND")" ] || die "info differs"
"$UMBRACTL" clone "$SECOND/there" "$MNT/clone" || die "clone from one to the other"

fails_with "the same directory again" 32 mount -t fuse.umbrafs "$POOL" "$SECOND"
fails_with "the first directory again" 32 mount -t fuse.umbrafs "$POOL" "$MNT"
fails_with "the daemon by itself" 32 "$UMBRAFS" "$POOL" "$T/third"
grep -q "to have it on $T/third as well: mount" "$T/out" || die "does not say what to do: $(cat "$T/out")"
fails_with "not a directory" 32 mount -t fuse.umbrafs "$POOL" "$MNT/file"
[ "$(mounts)" = 2 ] || die "there are $(mounts) mounts"

# A new mount, no peer of the first: what comes into one does not come into the other.
mount --make-shared "$MNT"
quiet "umount of the second" umount "$SECOND"
quiet "beside a shared one" mount -t fuse.umbrafs "$POOL" "$SECOND"
[ "$(findmnt -n -o PROPAGATION "$SECOND")" = private ] || die "propagation is $(findmnt -n -o PROPAGATION "$SECOND")"
mount -t tmpfs none "$MNT/dir"
[ "$(stat -f -c %T "$SECOND/dir")" != tmpfs ] || die "a mount came through"
umount "$MNT/dir"
mount --make-private "$MNT"
mount --make-unbindable "$MNT"
umount "$SECOND"
fails_with "of what must not be copied" 32 mount -t fuse.umbrafs "$POOL" "$SECOND"
mount --make-private "$MNT"
quiet "in the filesystem itself" mount -t fuse.umbrafs "$POOL" "$MNT/inside"
[ "$(cat "$MNT/inside/file")" = hello ] || die "no pool in itself"
quiet "umount of that" umount "$MNT/inside"

# ---- its own options, and the filesystem's ----------------------------------------------------------
quiet "a second mount, read-only" mount -t fuse.umbrafs -o ro,nosuid,noexec "$POOL" "$SECOND"
touch "$SECOND/x" 2>/dev/null && die "written through the read-only mount"
touch "$MNT/x" || die "the first one is read-only, too"
case ,$(options "$SECOND"), in *,ro,nosuid,noexec,*) ;; *) die "the second has $(options "$SECOND")" ;; esac
case ,$(options "$MNT"), in *,ro,* | *nosuid* | *noexec*) die "the first has $(options "$MNT")" ;; esac
quiet "an option for it later" mount -o remount,nodev "$SECOND"
case ,$(options "$SECOND"), in *,ro,nosuid,nodev,noexec,*) ;; *) die "the second has $(options "$SECOND") now" ;; esac
touch "$MNT/x" || die "the first one is read-only because of the second"
quiet "writable after all" mount -o remount,rw "$SECOND"
touch "$SECOND/x" || die "the second is not writable after remount,rw"
case ,$(options "$SECOND"), in *,rw,nosuid,nodev,noexec,*) ;; *) die "the second has $(options "$SECOND") at last" ;; esac
quiet "umount of it" umount "$SECOND"
quiet "the options of the first" mount -t fuse.umbrafs -o noatime,commit=7 "$POOL" "$SECOND"
quiet "umount of it" umount "$SECOND"
for option in commit=8 discard strictatime data=inplace cache=none writeback share=off threads=3 sync shadow_mem=2M; do
	fails_with "$option for the second only" 32 mount -t fuse.umbrafs -o "noatime,$option" "$POOL" "$SECOND"
	grep -q "$option cannot be had" "$T/out" || die "$option is not named: $(cat "$T/out")"
done
fails_with "an unknown option" 1 mount -t fuse.umbrafs -o nonsense "$POOL" "$SECOND"
mount -o remount,commit=9 "$MNT" >"$T/out" 2>&1 || die "remount with an option of the filesystem's: $(cat "$T/out")"
grep -q 'commit=9 is passed over' "$T/out" || die "remount says nothing of commit=9: $(cat "$T/out")"

# What the kernel does not do when it remounts, the daemon does.
syncs() {
	"$UMBRACTL" stat --json "$MNT" | grep -o '"syncs": *[0-9]*' | grep -o '[0-9]*$'
}
durable() { # WHAT COMMAND...: is durable when the command ends
	local what=$1 was
	shift
	was=$(syncs)
	"$@" || die "$what"
	[ "$BACKEND" = dax ] || [ "$(syncs)" -gt "$was" ] || die "$what: is not made durable"
}
copy() { # FLAGS FROM TO: a page, by copy_file_range(2)
	"$PYTHON" -c 'import os, sys
to = os.open(sys.argv[3], os.O_WRONLY | eval(sys.argv[1]))
assert os.copy_file_range(os.open(sys.argv[2], os.O_RDONLY), to, 4096) == 4096' "$@"
}
head -c 8192 /dev/urandom >"$MNT/from"
head -c 8192 /dev/urandom >"$MNT/to"
mkdir "$MNT/attr" "$MNT/attr/below"
for attr in D S; do
	chattr "+$attr" "$MNT/attr"
	durable "a new file below +$attr" touch "$MNT/attr/new"
	durable "a link below +$attr" ln "$MNT/from" "$MNT/attr/link"
	durable "renamed below +$attr" mv "$MNT/attr/new" "$MNT/attr/old"
	durable "renamed away from +$attr" mv "$MNT/attr/old" "$MNT/gone"
	durable "renamed to below +$attr" mv "$MNT/gone" "$MNT/attr/new"
	durable "removed below +$attr" rm "$MNT/attr/new"
	rm "$MNT/attr/link"
	chattr "-$attr" "$MNT/attr"
done
durable "copied to a file opened with O_SYNC" copy os.O_SYNC "$MNT/from" "$MNT/to"
durable "copied to a file opened with O_DSYNC" copy os.O_DSYNC "$MNT/from" "$MNT/to"
chattr +S "$MNT/to"
durable "copied to a file with +S" copy 0 "$MNT/from" "$MNT/to"
durable "space allocated to a file with +S" fallocate -l 16384 "$MNT/to"
durable "a file with +S truncated" truncate -s 5000 "$MNT/to"
durable "written to a file with +S" dd if=/dev/zero of="$MNT/to" bs=100 count=1 conv=notrunc status=none
quiet "remount,dirsync" mount -o remount,dirsync "$MNT"
"$UMBRACTL" info "$MNT" | grep -q 'dirsync' || die "remount,dirsync did nothing: $("$UMBRACTL" info "$MNT")"
if [ "$BACKEND" != dax ]; then
	was=$(syncs)
	mkdir "$MNT/durable"
	[ "$(syncs)" -gt "$was" ] || die "a change of a directory is not made durable after remount,dirsync"
fi
quiet "remount,async" mount -o remount,async "$MNT"
"$UMBRACTL" info "$MNT" | grep -q 'dirsync' || die "remount,async has taken dirsync away"

# ---- umount of either -------------------------------------------------------------------------------
quiet "a second mount" mount -t fuse.umbrafs "$POOL" "$SECOND"
quiet "umount of the first" umount "$MNT"
[ "$(cat "$SECOND/file")" = hello ] || die "the second does not work without the first"
touch "$SECOND/y" || die "nor can it be written"
flock -n "$POOL" true && die "nobody holds the pool"
quiet "the first again" mount -t fuse.umbrafs "$POOL" "$MNT"
quiet "umount by the pool's name takes the latest" umount "$POOL"
[ "$(findmnt -n -o TARGET -S "$POOL")" = "$SECOND" ] || die "left is $(findmnt -n -o TARGET -S "$POOL")"
(cd "$T" && quiet "umount of the last" umount second) || exit 1
flock -n "$POOL" true || die "umount of the last did not wait for the daemon"
pool_fsck

cat >"$T/fstab" <<EOF
$POOL $MNT fuse.umbrafs nofail 0 2
$POOL $SECOND fuse.umbrafs nofail,ro,x-test 0 0
EOF
quiet "two lines in fstab" mount -T "$T/fstab" -a
quiet "and once more" mount -T "$T/fstab" -a
[ "$(mounts)" = 2 ] || die "there are $(mounts) mounts"
touch "$SECOND/x" 2>/dev/null && die "the second line says ro"
umount "$MNT" "$SECOND"
ended "umount of both"

# Two at once, as at boot: one becomes the daemon, the other finds it.
for ((i = 0; i < $(long 6 30); i++)); do
	mount -t fuse.umbrafs "$POOL" "$MNT" 2>"$T/err1" &
	one=$!
	mount -t fuse.umbrafs "$POOL" "$SECOND" 2>"$T/err2" || die "two at once: $(cat "$T/err2")"
	wait $one || die "two at once: $(cat "$T/err1")"
	[ "$(daemons)" = 1 ] || die "two at once: $(daemons) daemons"
	cmp "$MNT/file" "$SECOND/file" || die "two at once: two filesystems"
	umount "$SECOND" "$MNT"
done
ended "two at once"
say "ok: two mounts at once, $i times"

# ---- the end by a signal ----------------------------------------------------------------------------
quiet "mount" mount -t fuse.umbrafs "$POOL" "$MNT"
quiet "a second" mount -t fuse.umbrafs "$POOL" "$SECOND"
mount --bind "$MNT/dir" "$T/third"
pid=$(um_daemons_below "$T")
umount "$MNT"
truncate -s 64M "$MEM/other"
"$MKFS" -q "$MEM/other" || die "mkfs"
quiet "another pool where the first was" mount -t fuse.umbrafs "$MEM/other" "$MNT"
kill "$pid"
ended_pool() {
	timeout 30 flock "$POOL" true || die "$1: the pool is still locked"
}
ended_pool "SIGTERM"
[ "$(mounts)" = 0 ] || die "SIGTERM leaves $(findmnt -n -o TARGET -S "$POOL")"
touch "$MNT/mine" || die "SIGTERM took another pool's mount"
umount "$MNT"
timeout 30 flock "$MEM/other" true
say "ok: a signal takes all mounts of the pool, and no other's"

# ---- a pool that another one has taken the name of ------------------------------------------------
if [ $DEVICE = 0 ]; then
	quiet "mount" mount -t fuse.umbrafs "$POOL" "$MNT"
	mv "$POOL" "$POOL.moved"
	cp "$MEM/other" "$POOL"
	quiet "another of that name" mount -t fuse.umbrafs "$POOL" "$SECOND"
	[ -e "$SECOND/mine" ] || die "got the pool that had the name before"
	quiet "the other, twice" mount -t fuse.umbrafs "$POOL" "$T/third"
	[ -e "$T/third/mine" ] || die "got the pool that had the name before"
	quiet "the first by its new name" umount "$MNT"
	umount "$SECOND" "$T/third"
	mv "$POOL.moved" "$POOL"
	ended "another of that name"
fi

# ---- dead mounts ------------------------------------------------------------------------------------
quiet "mount" mount -t fuse.umbrafs "$POOL" "$MNT"
quiet "a second" mount -t fuse.umbrafs "$POOL" "$SECOND"
kill -9 "$(um_daemons_below "$T")"
timeout 30 flock "$POOL" true
mount -t fuse.umbrafs "$POOL" "$SECOND" >"$T/out" 2>&1 || die "mount over a dead second mount: $(cat "$T/out")"
mount -t fuse.umbrafs "$POOL" "$MNT" >"$T/out" 2>&1 || die "a second mount over a dead first one: $(cat "$T/out")"
cmp "$MNT/file" "$SECOND/file" || die "after kill -9 the two differ"
[ "$(mounts)" = 2 ] || die "dead mounts are left: $(mounts)"
umount "$MNT" "$SECOND"
ended "dead mounts"

# The way to a dead mount may be changed by whoever owns a directory on it, just when root is about to
# clear it away: then that mount goes, and not what the path leads to by now.
mkdir -p "$T/user/way/mnt" "$T/user/trap/mnt"
quiet "mount" mount -t fuse.umbrafs "$POOL" "$T/user/way/mnt"
mount -t tmpfs victim "$T/user/trap/mnt"
kill -9 "$(um_daemons_below "$T")"
timeout 30 flock "$POOL" true
LD_PRELOAD=$HELPERS/libswap.so ASAN_OPTIONS=verify_asan_link_order=0 \
	UMBRA_SWAP="$T/user/way:$T/user/aside:$T/user/trap:$T/user/way" \
	"$UMBRAFS" "$POOL" "$T/user/way/mnt" >"$T/out" 2>&1
[ -d "$T/user/aside" ] || die "the ways were not changed: $(cat "$T/out")"
findmnt -n -o TARGET -S victim >/dev/null || die "another mount was taken for the dead one"
findmnt -n -o TARGET "$T/user/aside/mnt" >/dev/null && die "the dead mount is still there: $(cat "$T/out")"
umount "$T/user/way/mnt"
findmnt -n -o TARGET -S victim >/dev/null && umount "$T/user/way/mnt"
ended "a changed way"
say "ok: a way that changes leads to no other mount"

# ---- read-only, then writable -----------------------------------------------------------------------
orphan_file() { # an open file without a name, when the daemon dies
	"$PYTHON" - "$MNT" <<'EOF' &
import os, sys, time
files = []
for i in range(40):
    path = "%s/orphan-%d" % (sys.argv[1], i)
    f = open(path, "wb")
    f.write(b"x" * 100000)
    f.flush()
    os.setxattr(path, "user.name", b"v" * 512)
    os.unlink(path)
    files.append(f)
open(sys.argv[1] + "/all-made", "w").close()
time.sleep(1000)
EOF
	holder=$!
	for ((i = 0; i < 500; i++)); do
		[ -e "$MNT/all-made" ] && return
		sleep 0.02
	done
	die "no orphans"
}

crash_with_orphans() {
	quiet "mount" mount -t fuse.umbrafs "$POOL" "$MNT"
	rm -f "$MNT/all-made"
	orphan_file
	echo "$1" >"$MNT/last"
	kill -9 "$(um_daemons_below "$T")"
	kill -9 $holder
	wait $holder 2>/dev/null
	umount -l "$MNT"
	timeout 30 flock "$POOL" true
}

head -c 262144 /dev/urandom >"$T/content"
quiet "mount" mount -t fuse.umbrafs "$POOL" "$MNT"
cp "$T/content" "$MNT/clone1"
"$UMBRACTL" clone "$MNT/clone1" "$MNT/clone2" || die "clone"
quiet "umount" umount "$MNT"
crash_with_orphans one
sum=$(md5sum <"$POOL")
quiet "mount read-only after a crash" mount -t fuse.umbrafs -o ro "$POOL" "$MNT"
[ "$(cat "$MNT/last")" = one ] || die "ro: what was acknowledged is not shown"
touch "$MNT/x" 2>/dev/null && die "ro: written"
[ "$(md5sum <"$POOL")" = "$sum" ] || die "ro: the pool was changed"
fails_with "a second mount, writable" 32 mount -t fuse.umbrafs -o rw "$POOL" "$SECOND"
grep -q 'remount,rw' "$T/out" || die "does not say what to do: $(cat "$T/out")"
quiet "a second mount, read-only" mount -t fuse.umbrafs -o ro "$POOL" "$SECOND"
flock -s "$POOL" sleep 30 &
reader=$!
sleep 0.2
fails_with "remount,rw while somebody looks at the pool" 32 mount -o remount,rw "$MNT"
[ "$(cat "$MNT/last")" = one ] || die "not readable after that"
touch "$MNT/x" 2>/dev/null && die "written after that"
pkill -P $reader 2>/dev/null
kill $reader 2>/dev/null
wait $reader 2>/dev/null
[ "$(md5sum <"$POOL")" = "$sum" ] || die "a remount that failed changed the pool"
# Others are at work meanwhile, and have files open, of which some are clones of others.
cmp "$T/content" "$MNT/clone1" || die "ro: a clone reads wrong"
exec 7<"$MNT/last" 8<"$MNT/clone2"
head -c 4096 <&8 | cmp - <(head -c 4096 "$T/content") || die "ro: the other clone reads wrong"
if ! grep -q 'do not share page cache' "$LOG" 2>/dev/null && [ "$(counter views)" -gt 0 ]; then
	"$HELPERS/pagesame" "$MNT/clone1" "$MNT/clone2" >"$T/same" || die "pagesame: $(cat "$T/same")"
	read -r pages _ same _ <"$T/same"
	[ "$same" = "$pages" ] || die "ro: clones do not share page cache: $(cat "$T/same")"
	say "ok: clones on a read-only mount share page cache"
	views=1
fi
touch "$T/go"
while [ -e "$T/go" ]; do
	find "$MNT" -type f -exec cat {} + >/dev/null 2>>"$T/err-load" || echo failed >>"$T/err-load"
done &
load=$!
: >"$T/err-load"
quiet "remount,rw" mount -o remount,rw "$MNT"
echo two >"$MNT/last2" || die "not writable after remount,rw"
[ "$(cat <&7)" = one ] || die "a file that was open reads wrong"
exec 7<&-
head -c 262144 /dev/zero >"$MNT/clone1" || die "cannot write a clone after remount,rw"
echo 1 >/proc/sys/vm/drop_caches # what is cached is right in any case
cmp <(tail -c +4097 "$T/content") - <&8 || die "a clone that was open shows what was written to the other"
exec 8<&-
[ -z "${views:-}" ] || [ "$(counter views_made)" -gt 0 ] || die "no view was made"
sleep 0.3
rm "$T/go"
wait $load
[ ! -s "$T/err-load" ] || die "readers failed during the remount: $(head -n3 "$T/err-load")"
[ "$("$UMBRACTL" info --json "$MNT" | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["readonly"])')" = False ] || die "info says read-only"
"$UMBRACTL" clone "$MNT/last" "$MNT/last3" || die "no clone after remount,rw"
for ((i = 0; i < 200; i++)); do
	[ "$(counter orphans_freed)" -ge 40 ] && break
	sleep 0.05
done
[ "$(counter orphans_freed)" -ge 40 ] || die "orphans are left: $(counter orphans_freed) freed"
umount "$SECOND" "$MNT"
ended "remount,rw"
pool_fsck
quiet "mount" mount -t fuse.umbrafs "$POOL" "$MNT"
[ "$(cat "$MNT/last2" "$MNT/last3")" = "$(printf 'two\none')" ] || die "lost after remount,rw"

# And back: nothing changes any more, by reading neither.
touch -a -d '2 days ago' "$MNT/last"
before=$(stat -c %X "$MNT/last")
quiet "remount,ro" mount -o remount,ro "$MNT"
sum=$(md5sum <"$POOL")
cat "$MNT/last" >/dev/null
[ "$(stat -c %X "$MNT/last")" = "$before" ] || die "the access time changed after remount,ro"
"$UMBRACTL" clone "$MNT/last" "$MNT/last4" 2>/dev/null && die "cloned after remount,ro"
sleep 0.5
[ "$(md5sum <"$POOL")" = "$sum" ] || die "the pool is changed after remount,ro"
quiet "remount,rw again" mount -o remount,rw "$MNT"
cat "$MNT/last" >/dev/null
[ "$(stat -c %X "$MNT/last")" != "$before" ] || die "the access time does not change after remount,rw"
echo three >"$MNT/last5" || die "not writable"
exec 8>"$MNT/writing"
fails_with "remount,ro with a file open for writing" 32 mount -o remount,ro "$MNT"
echo four >&8 || die "not writable after a remount that was refused"
exec 8>&-
echo five >"$MNT/last6" || die "not writable after a remount that was refused"
umount "$MNT"
ended "remount,ro"
pool_fsck

# A death after remount,rw is like any.
crash_with_orphans six
quiet "mount read-only after a crash" mount -t fuse.umbrafs -o ro "$POOL" "$MNT"
quiet "remount,rw" mount -o remount,rw "$MNT"
echo seven >"$MNT/seven"
kill -9 "$(um_daemons_below "$T")"
timeout 30 flock "$POOL" true
pool_fsck
mount -t fuse.umbrafs "$POOL" "$MNT" >"$T/out" 2>&1 || die "mount after kill -9: $(cat "$T/out")"
[ "$(cat "$MNT/last" "$MNT/seven")" = "$(printf 'six\nseven')" ] || die "lost by kill -9 after remount,rw"
umount "$MNT"
ended "kill -9 after remount,rw"

# What cannot be written does not become writable.
if [ $DEVICE = 0 ]; then
	mkdir "$MEM/protected"
	mount --bind "$(dirname "$POOL")" "$MEM/protected"
	mount -o remount,bind,ro "$MEM/protected"
	mount -t fuse.umbrafs "$MEM/protected/pool" "$MNT" >"$T/out" 2>&1 || die "mount of a pool on a read-only mount: $(cat "$T/out")"
	fails_with "remount,rw of what cannot be written" 32 mount -o remount,rw "$MNT"
	[ "$(cat "$MNT/seven")" = seven ] || die "not readable after that"
	umount "$MNT"
	ended "what cannot be written"
	umount "$MEM/protected"
fi

# ---- somebody's mount whose source leads to a daemon that hangs ------------------------------------------
quiet "mount" mount -t fuse.umbrafs "$POOL" "$MNT"
pid=$(um_daemons_below "$T")
"$MKFS" -q -s 32M "$MNT/inner" && "$MKFS" -q -s 32M "$MEM/wanted" || die "mkfs"
quiet "a pool within" mount -t fuse.umbrafs "$MNT/inner" "$T/third"
# Nothing in the kernel's memory answers for its name any more.
mv "$MNT/inner" "$MNT/moved"
quiet "the pool that is wanted twice" mount -t fuse.umbrafs "$MEM/wanted" "$SECOND"
mkdir "$T/fourth"
kill -STOP "$pid"
timeout 60 mount -t fuse.umbrafs "$MEM/wanted" "$T/fourth" >"$T/out" 2>&1
rc=$?
kill -CONT "$pid"
[ $rc = 0 ] || die "a second mount while another pool's source hangs: code $rc, $(cat "$T/out")"
umount "$T/fourth" "$SECOND" "$T/third" || die "umount after that"
timeout 30 flock "$MNT/moved" true || die "the inner pool is still in use"
umount "$MNT"
ended "a source that hangs"
pool_fsck
