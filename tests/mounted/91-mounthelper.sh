#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mount(8), umount(8), mkfs(8), fsck(8), fstab and fusermount3. The helpers are in /sbin as if
# installed, in the mount namespace of the test.
# backends: file
# long-backends: file loop
# vm: long
# seconds: 180 300
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
need fusermount3

helpers_in_sbin
mkdir "$T/second"

field() { # of the mount on $MNT: fstype, source, options
	findmnt -n -o "$1" "$MNT"
}

# util-linux up to 2.38 takes the type of what is on an absolute path from statfs(2), "fuse", and so runs
# no umount helper; it is given a relative path here, or uhelper=.
wait_free() { # the helper has waited: the pool must be free at once
	flock -n "$POOL" true || die "$1: the pool is still locked"
	"$FSCK" -n "$POOL" >"$T/fsck.out" 2>&1 || die "$1: $(tail -n1 "$T/fsck.out")"
}

# ---- mkfs(8), fsck(8) --------------------------------------------------------------------------------
if [ $DEVICE = 1 ]; then
	pool_make 64M
	fails_with "mkfs over a pool" 1 mkfs -t fuse.umbrafs "$POOL"
	mkfs -t fuse.umbrafs -f "$POOL" >"$T/out" 2>&1 </dev/null || die "mkfs -t fuse.umbrafs: $(cat "$T/out")"
else
	truncate -s 64M "$POOL"
	mkfs -t fuse.umbrafs "$POOL" >"$T/out" 2>&1 </dev/null || die "mkfs -t fuse.umbrafs: $(cat "$T/out")"
fi
mkfs -t umbrafs -f "$POOL" >"$T/out" 2>&1 </dev/null || die "mkfs -t umbrafs: $(cat "$T/out")"
fsck -t fuse.umbrafs -n "$POOL" >"$T/out" 2>&1 </dev/null || die "fsck -t fuse.umbrafs: $(cat "$T/out")"
fsck -t umbrafs -p "$POOL" >"$T/out" 2>&1 </dev/null || die "fsck -p: $(cat "$T/out")"

# ---- both type names ----------------------------------------------------------------------------------
for type in fuse.umbrafs umbrafs; do
	quiet "mount -t $type" mount -t $type "$POOL" "$MNT"
	[ "$(field FSTYPE)" = fuse.umbrafs ] || die "the type shown is $(field FSTYPE)"
	[ "$(field SOURCE)" = "$POOL" ] || die "the source shown is $(field SOURCE), not $POOL"
	case ,$(field OPTIONS), in *,nosuid,* | *,nodev,*) die "root's mount has $(field OPTIONS)" ;; esac
	case ,$(field OPTIONS), in *,allow_other,*) ;; *) die "no allow_other: $(field OPTIONS)" ;; esac
	case ,$(field OPTIONS), in *,default_permissions,*) ;; *) die "no default_permissions" ;; esac
	echo hello >"$MNT/f-$type" || die "write"
	(cd "$T" && quiet "umount after -t $type" umount mnt) || exit 1
	wait_free "umount did not wait"
done

# ---- options ---------------------------------------------------------------------------------------------
quiet "mount with generic options" mount -t fuse.umbrafs "$POOL" "$MNT" \
	-o rw,nofail,noauto,_netdev,x-systemd.automount,noatime,nosuid,nodev,comment=x,data=inplace
case ,$(field OPTIONS), in *,nosuid,*) ;; *) die "nosuid is lost: $(field OPTIONS)" ;; esac
fails_with "the same pool on the same directory" 32 mount -t fuse.umbrafs "$POOL" "$MNT"
quiet "the same pool on a second directory" mount -t fuse.umbrafs "$POOL" "$T/second"
cmp "$MNT/f-umbrafs" "$T/second/f-umbrafs" || die "two mounts of a pool differ"
quiet "umount of the second" umount "$T/second"

quiet "remount ro" mount -o remount,ro "$MNT"
touch "$MNT/x" 2>/dev/null && die "written after remount,ro"
daemons=$(um_daemons_below "$T" | wc -l)
[ "$daemons" = 1 ] || die "$daemons daemons after a remount"
quiet "remount rw" mount -o remount,rw "$MNT"
touch "$MNT/x" || die "not writable after remount,rw"
(cd "$T" && quiet "umount" umount mnt) || exit 1
wait_free "umount"
fails_with "an unknown option" 1 mount -t fuse.umbrafs "$POOL" "$MNT" -o nonsense
fails_with "dax" 1 mount -t fuse.umbrafs "$POOL" "$MNT" -o dax
fails_with "iversion" 1 mount -t umbrafs "$POOL" "$MNT" -o iversion
fails_with "inlinecrypt" 1 mount -t umbrafs "$POOL" "$MNT" -o inlinecrypt
fails_with "a missing pool" 32 mount -t fuse.umbrafs "$T/missing" "$MNT"
fails_with "a missing directory" 32 mount -t fuse.umbrafs "$POOL" "$T/nowhere"
quiet "a trailing comma" "$SBIN/mount.fuse.umbrafs" "$POOL" "$MNT" -o rw,
quiet "umount -i" umount -i "$MNT"
quiet "mounting right behind a bare umount" mount -t fuse.umbrafs "$POOL" "$MNT" -o ro
touch "$MNT/x" 2>/dev/null && die "written though mounted ro"
[ "$(cat "$MNT/f-umbrafs")" = hello ] || die "content"
quiet "umount of ro" umount "$MNT"

# ---- nosymfollow -------------------------------------------------------------------------------------------
follows() { # the link in the mount on $1
	[ "$(cat "$1/link" 2>/dev/null)" = hello ]
}
keeps_links() {
	case ,$(findmnt -n -o OPTIONS "$1"), in *,nosymfollow,*) ;; *) die "$2: $1 has $(findmnt -n -o OPTIONS "$1")" ;; esac
	follows "$1" && die "$2: a link in $1 is followed"
	[ "$(readlink "$1/link")" = f-umbrafs ] || die "$2: a link in $1 cannot be read"
}
quiet "mount with what is ignored" mount -t umbrafs "$POOL" "$MNT" -o nomand,mand,noiversion,symfollow
ln -s f-umbrafs "$MNT/link" && follows "$MNT" || die "links are not followed"
quiet "a second mount with nosymfollow" mount -t umbrafs "$POOL" "$T/second" -o nosymfollow
keeps_links "$T/second" "second mount"
follows "$MNT" || die "nosymfollow is for the second mount alone"
quiet "umount of the second" umount "$T/second"
(cd "$T" && quiet "umount" umount mnt) || exit 1
wait_free "umount"
quiet "mount with nosymfollow" mount -t umbrafs "$POOL" "$MNT" -o nosymfollow,nodev
keeps_links "$MNT" "mount"
case ,$(field OPTIONS), in *,nodev,*) ;; *) die "nodev is lost: $(field OPTIONS)" ;; esac
quiet "a second mount without it" mount -t umbrafs "$POOL" "$T/second"
follows "$T/second" || die "a second mount has taken over nosymfollow"
quiet "umount of the second" umount "$T/second"
# Named by nobody, as a helper gets it; mount(8) itself passes what the mount has.
quiet "remount,ro" "$SBIN/mount.umbrafs" "$POOL" "$MNT" -o remount,ro
keeps_links "$MNT" "remount,ro"
quiet "remount,rw" mount -o remount,rw "$MNT"
keeps_links "$MNT" "remount,rw"
exec 9<"$MNT/f-umbrafs"
(cd "$T" && fails_with "umount -r of a busy mount" 32 umount -r mnt) || exit 1
exec 9<&-
keeps_links "$MNT" "umount -r"
quiet "remount,symfollow" "$SBIN/mount.umbrafs" "$POOL" "$MNT" -o remount,rw,symfollow
follows "$MNT" || die "nosymfollow stays"
quiet "remount,nosymfollow" "$SBIN/mount.umbrafs" "$POOL" "$MNT" -o remount,nosymfollow
keeps_links "$MNT" "remount,nosymfollow"
rm "$MNT/link" || die "rm"
(cd "$T" && quiet "umount" umount mnt) || exit 1
wait_free "umount"

# ---- fstab -------------------------------------------------------------------------------------------------
cat >"$T/fstab" <<EOF
$POOL $MNT fuse.umbrafs noauto,nofail,relatime,x-test=1 0 2
EOF
quiet "mount from fstab by directory" mount -T "$T/fstab" "$MNT"
quiet "umount" umount "$MNT"
quiet "mount from fstab by source" mount -T "$T/fstab" "$POOL"
# Who waits: a process that keeps a file open makes umount busy, a lazy one does not.
tail -f "$MNT/f-umbrafs" >/dev/null &
holder=$!
for ((i = 0; i < 200; i++)); do
	[ "$(readlink "/proc/$holder/fd/3")" = "$MNT/f-umbrafs" ] && break
	sleep 0.02
done
fails_with "umount of a busy mount" 32 umount "$MNT"
kill $holder
wait $holder 2>/dev/null
quiet "umount after all" umount "$MNT"
"$FSCK" -n "$POOL" >"$T/fsck.out" 2>&1 || die "fsck right behind umount: $(cat "$T/fsck.out")"

quiet "mount with uhelper" mount -t fuse.umbrafs -o uhelper=umbrafs "$POOL" "$MNT"
quiet "umount by uhelper" umount "$MNT"
wait_free "umount by uhelper"
# The helper closes what its caller had open: a pipe to it ends.
timeout 20 bash -c 'mount -t fuse.umbrafs "$1" "$2" | cat' sh "$POOL" "$MNT" || die "mount in a pipe hangs"
[ "$(field FSTYPE)" = fuse.umbrafs ] || die "mount in a pipe"
# kill -9, then the same mount command again just works.
kill -9 "$(um_daemons_below "$T")"
sleep 0.2
mount -t fuse.umbrafs "$POOL" "$MNT" >"$T/out" 2>&1 </dev/null || die "mount over a dead mount: $(cat "$T/out")"
[ "$(cat "$MNT/f-umbrafs")" = hello ] || die "content after kill -9"
quiet "umount" umount "$MNT"
"$FSCK" -n "$POOL" >"$T/fsck.out" 2>&1 || die "fsck right behind umount: $(cat "$T/fsck.out")"

# ---- an ordinary user ----------------------------------------------------------------------------------------
if [ "$BACKEND" = file ]; then
	# fusermount3 looks at it; a system made by debootstrap alone has none.
	[ -e /etc/mtab ] || { ln -s ../proc/self/mounts /etc/mtab && MTAB=made; }
	mkdir "$MEM/dev" "$MEM/user" "$MEM/user/mnt"
	mount -t tmpfs -o mode=0755 dev "$MEM/dev"
	mknod -m 0666 "$MEM/dev/fuse" c 10 229 && mount --bind "$MEM/dev/fuse" /dev/fuse || die "mknod"
	chmod 0755 "$MEM" "$T" 2>/dev/null
	chown -R 65534:65534 "$MEM/user"
	user() {
		timeout 60 setpriv --reuid 65534 --regid 65534 --clear-groups "$@" </dev/null
	}
	if user test -x "$UMBRAFS" && user test -w "$MEM/user"; then
		UPOOL=$MEM/user/pool
		user "$MKFS" -q -s 64M "$UPOOL" || die "mkfs as user"
		fails_with "nosymfollow by a user" 32 setpriv --reuid 65534 --regid 65534 --clear-groups "$UMBRAFS" -o nosymfollow "$UPOOL" "$MEM/user/mnt"
		user "$UMBRAFS" "$UPOOL" "$MEM/user/mnt" >"$T/out" 2>&1 || die "mount as user: $(cat "$T/out")"
		user sh -c 'echo mine >"$1/f" && cat "$1/f" >/dev/null && mkdir "$1/d"' sh "$MEM/user/mnt" || die "work as user"
		[ "$(findmnt -n -o FSTYPE "$MEM/user/mnt")" = fuse.umbrafs ] || die "type as user"
		case ,$(findmnt -n -o OPTIONS "$MEM/user/mnt"), in *,nosuid,*) ;; *) die "a user's mount without nosuid" ;; esac
		# Whose daemon it is decides whom it may serve.
		fails_with "a user's pool a second time by root" 32 mount -t fuse.umbrafs "$UPOOL" "$T/second"
		grep -q 'by user 65534' "$T/out" || die "does not say whose mount it is: $(cat "$T/out")"
		user mkdir "$MEM/user/second"
		fails_with "a user's pool a second time" 32 setpriv --reuid 65534 --regid 65534 --clear-groups "$UMBRAFS" -m "$UPOOL" "$MEM/user/second"
		grep -q 'only root' "$T/out" || die "does not say who may: $(cat "$T/out")"
		user fusermount3 -u "$MEM/user/mnt" || die "fusermount3 -u"
		for ((i = 0; i < 100; i++)); do
			user "$FSCK" -n "$UPOOL" >"$T/out" 2>&1 && break
			sleep 0.1
		done
		user "$FSCK" -n -f "$UPOOL" >"$T/out" 2>&1 || die "fsck as user: $(cat "$T/out")"
		say "ok: an ordinary user mounts a pool of their own"
		# The connections are the user's: so direct writes beside cached reads leave no old pages, and who dies lets others go.
		mountpoint -q /sys/fs/fuse/connections || mount -t fusectl fusectl /sys/fs/fuse/connections || die "fusectl"
		user "$UMBRAFS" "$UPOOL" "$MEM/user/mnt" >"$T/out" 2>&1 || die "mount as user: $(cat "$T/out")"
		user "$HELPERS/directread" "$MEM/user/mnt/direct" 3 65536 read || die "O_DIRECT as user"
		if [ "$(user "$UMBRACTL" stat "$MEM/user/mnt" | awk '$1 == "direct_drops" { print $2 }')" = 0 ]; then
			[[ $(uname -r) =~ ^(5|6\.[0-5])\. ]] || die "nothing was invalidated"
		else
			pgrep -x umbrafs-guard -u 65534 -a | grep -qF "$MEM/user/mnt" || die "no guardian for an ordinary user"
		fi
		user "$HELPERS/directread" "$MEM/user/mnt/direct" 60 65536 read >/dev/null 2>&1 &
		load=$!
		sleep 1
		kill -9 "$(pgrep -x umbrafs -u 65534 -a | awk -v pool="$UPOOL" 'index($0, pool) { print $1; exit }')" || die "the user's daemon is not there"
		for ((i = 0; i < 100; i++)); do
			kill -0 $load 2>/dev/null || break
			sleep 0.05
		done
		kill -0 $load 2>/dev/null && die "users of a user's mount hang when its daemon died"
		wait $load
		user fusermount3 -u -z "$MEM/user/mnt" 2>/dev/null
		user "$FSCK" -n -f "$UPOOL" >"$T/out" 2>&1 || die "fsck as user after kill -9: $(cat "$T/out")"
		say "ok: O_DIRECT beside cached reads, and a death, on a user's mount"
		[ -z "${MTAB:-}" ] || rm /etc/mtab
	else
		die "$UMBRAFS is out of reach for an ordinary user: build elsewhere (tools/check does)"
	fi
fi
"$FSCK" -n -f "$POOL" >"$T/out" 2>&1 || die "fsck: $(cat "$T/out")"
