#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Masters and shadows through a mount: umbractl owners, map --shadows, the counters.
# backends: dax
# long-backends: dax file
# beside: yes
# seconds: 60 60
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
[ -x "$UMBRACTL" ] || die "umbractl is not built"

expect() {
	[ "$2" = "$3" ] || die "$1: expected \"$2\", got \"$3\""
}

# json EXPRESSION: of standard input, parsed as `j`.
json() {
	"$PYTHON" -c 'import json, sys; j = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1" || die "not JSON"
}

owners() {
	"$UMBRACTL" owners --json "$MNT" "$1" | json "$2"
}

pool_make 256M
pool_mount share=off,shadow_mem=4M
head -c 3000000 /dev/urandom >"$MNT/a"
mkdir -p "$MNT/dir/with space"
"$UMBRACTL" clone "$MNT/a" "$MNT/b" || die "clone"
"$UMBRACTL" clone "$MNT/a" "$MNT/dir/with space/c" || die "clone"
ln "$MNT/b" "$MNT/b2"
expect "shadows before any read" 0 "$(counter shadows)"
cmp "$MNT/b" "$MNT/dir/with space/c" || die "clones differ"
[ "$(counter shadows)" -gt 0 ] || die "no shadows after reading clones"
[ "$(counter masters)" -gt 0 ] || die "no masters after reading clones"

say "owners by path"
lba=$("$UMBRACTL" map --json "$MNT/a" | json 'j["extents"][0]["lba"] + 100')
expect "paths" "/a /b /b2 /dir/with space/c" \
	"$(owners "$lba" '" ".join(sorted(p for o in j["owners"] for p in o["paths"]))')"
expect "offsets" "{409600}" "$(owners "$lba" 'set(o["offset"] for o in j["owners"])')"
expect "cached" "2" "$(owners "$lba" 'sum(o["cached"] for o in j["owners"])')"
expect "exact" True "$(owners "$lba" 'j["exact"]')"
"$UMBRACTL" owners "$MNT" "$lba" | grep -q "/dir/with space/c" || die "owners for people"

say "map --shadows, before and after a write"
expect "cached bytes" 3002368 "$("$UMBRACTL" map --shadows --json "$MNT/b" | json 'j["shadow_bytes"]')"
expect "shadows of its first master" 2 \
	"$("$UMBRACTL" map --shadows --json "$MNT/b" | json 'j["extents"][0]["shadows"][0]["shadows"]')"
printf x | dd of="$MNT/b" bs=1 seek=409600 conv=notrunc status=none || die "write"
sync -f "$MNT"
expect "owners after the write" "/a /dir/with space/c" \
	"$(owners "$lba" '" ".join(sorted(p for o in j["owners"] for p in o["paths"]))')"
expect "cached bytes after the write" 2998272 "$("$UMBRACTL" map --shadows --json "$MNT/b" | json 'j["shadow_bytes"]')"
"$UMBRACTL" map --shadows "$MNT/b" | grep -q shadow || die "map --shadows for people"

say "truncate and removal leave none"
truncate -s 0 "$MNT/b"
rm "$MNT/dir/with space/c"
i=0
while [ "$(counter shadows)" != 0 ]; do
	i=$((i + 1))
	[ $i -lt 50 ] || die "shadows left: $(counter shadows)"
	sleep 0.1
	sync -f "$MNT"
done
expect "masters" 0 "$(counter masters)"

say "what is refused"
"$UMBRACTL" owners "$MNT" 999999999 2>/dev/null && die "a block that is not there"
"$UMBRACTL" owners /tmp 5 2>/dev/null && die "not a mount"
expect "a table's block has no owner" 0 "$(owners 3 'len(j["owners"])')"
pool_finish
