#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The kernel's overlayfs, as used by containers, with its upper and its lower layer on umbrafs.
# backends: dax
# long-backends: dax file loop
# seconds: 60 120
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

overlay() {
	mount -t overlay -o "lowerdir=$lower,upperdir=$MNT/upper,workdir=$MNT/work" umbrafs-overlay "$T/over"
}

make_layers() {
	local d
	mkdir "$lower" "$MNT/upper" "$MNT/work" || die "mkdir"
	for d in one two three; do
		mkdir -p "$lower/$d/sub"
		echo "$d" >"$lower/$d/file"
		ln -s file "$lower/$d/link"
	done
	overlay || die "umbrafs cannot be an upper layer: $(dmesg | tail -n 2)"
}

# Through the overlay: copies up, whiteouts, a rename, a directory that hides the lower one.
change() {
	cd "$T/over" || die "cd"
	echo more >>one/file
	rm two/file
	mv one/link one/moved
	rm -r three && mkdir three && echo new >three/new
	mkdir two/sub2 && rmdir two/sub
	mknod null c 1 3 && mkfifo fifo && ln one/file hard
	cd / || die "cd"
}

check() {
	local o=$T/over
	[ "$(cat "$o/one/file")" = $'one\nmore' ] || die "$1: a changed file"
	[ "$(cat "$o/hard")" = $'one\nmore' ] || die "$1: a hard link"
	[ "$(cat "$o/one/moved")" = $'one\nmore' ] || die "$1: a renamed link"
	[ "$(ls "$o/three")" = new ] || die "$1: a directory made anew shows the old one's entries"
	[ "$(ls "$o/two")" = $'link\nsub2' ] || die "$1: removed entries: $(ls "$o/two")"
	[ "$(ls "$o/one")" = $'file\nmoved\nsub' ] || die "$1: $(ls "$o/one")"
	[ "$(cat "$lower/one/file")" = one ] || die "$1: the lower layer has changed"
	[ "$(ls -A "$lower/two")" = $'file\nlink\nsub' ] || die "$1: the lower layer has changed"
	[ -c "$MNT/upper/two/file" ] || die "$1: no whiteout"
}

grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null
grep -qw overlay /proc/filesystems || skip "this kernel has no overlayfs"
pool_make 256M
pool_mount
mkdir "$T/over"

say "both layers on umbrafs"
lower=$MNT/lower
make_layers
change
check "both"
umount "$T/over" || die "umount of the overlay"
rm -r "$MNT/upper" "$MNT/work" "$lower"

say "the upper layer, with a remount"
lower=$MEM/lower
make_layers
change
check "upper"
umount "$T/over" || die "umount of the overlay"
pool_remount
overlay || die "the overlay does not mount again"
check "after a remount"
umount "$T/over" || die "umount of the overlay"
rm -r "$MNT/upper" "$MNT/work" "$lower"

# Linux 6.16 to 6.18 consider the lower file stale that overlayfs finds by its handle.
say "both layers on umbrafs, without handles, with a remount"
pool_umount
pool_mount nohandles
lower=$MNT/lower
make_layers
change
check "no handles"
umount "$T/over" || die "umount of the overlay"
pool_remount
overlay || die "the overlay does not mount again"
check "no handles, after a remount"
umount "$T/over" || die "umount of the overlay"
pool_finish
