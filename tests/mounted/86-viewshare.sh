#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Shared views with many processes working on the same clones, and with all clones of a file mapped and stored to at
# once.
# backends: dax
# long-backends: dax file
# seconds: 180 3000
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

pool_make 256M
pool_mount
say "many processes, the same files"
"$HELPERS/viewshare" "$MNT" "$SEED" 6 "$(long 15 1800)" || die "viewshare"
[ "$(counter view_opens)" -gt 100 ] || die "views were hardly used"
[ "$(counter view_binds)" -gt 0 ] || die "no view was ever bound"
rm -f "$MNT"/*
pool_finish

# How many cached shadows share the first block of a file, and how many owners it has.
shadows() {
	"$UMBRACTL" map --shadows --json "$1" |
		"$PYTHON" -c 'import json, sys; e = json.load(sys.stdin)["extents"][0]
print(e["shadows"][0]["shadows"] if e["shadows"] else 0, e["refs"])'
}
# A directory of 64 clones, all read.
clones() {
	dd if=/dev/urandom of="$MNT/src" bs=64K count=1 2>/dev/null
	for i in $(seq 64); do
		"$UMBRACTL" clone -q "$MNT/src" "$MNT/c$i" || die "clone"
	done
	read_clones
	sha256sum <"$MNT/src" >"$T/sum"
}
read_clones() {
	for i in $(seq 64); do
		cmp "$MNT/src" "$MNT/c$i" || die "c$i differs"
	done
}

for share in off auto; do
	say "all clones mapped and stored to at once, share=$share"
	pool_mount share=$share
	clones
	# Shadows are of what was read: of every clone, when each is read by itself. (The source was written.)
	if [ $share = off ] && [ "$(shadows "$MNT/c1")" != "64 65" ]; then
		echo 3 >/proc/sys/vm/drop_caches
		read_clones # they go with the inodes, when somebody makes the kernel drop its caches
		[ "$(shadows "$MNT/c1")" = "64 65" ] || die "before: $(shadows "$MNT/c1")"
	fi
	"$HELPERS/mwriteall" "$MNT"/c[1-5]? || die "stores to 50 clones"
	[ $share = auto ] || [ "$(shadows "$MNT/c1")" = "14 15" ] || die "after 50: $(shadows "$MNT/c1")"
	read -r _ owners <<<"$(shadows "$MNT/c1")"
	[ "$owners" = 15 ] || die "owners after 50: $owners"
	sha256sum <"$MNT/src" | cmp - "$T/sum" || die "the source has changed"
	"$HELPERS/mwriteall" "$MNT"/c[1-9] "$MNT"/c6[0-4] || die "stores to the rest"
	[ "$(shadows "$MNT/src")" = "0 1" ] || die "after all: $(shadows "$MNT/src")"
	sha256sum <"$MNT/src" | cmp - "$T/sum" || die "the source has changed"
	[ "$(counter etxtbsy)" = 0 ] || die "ETXTBSY: $(counter etxtbsy)"
	rm -f "$MNT"/*
	pool_finish
done
