#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# umbractl info, stat, clone, clone -r, dedupe, map, du through a mount.
# backends: dax
# long-backends: dax file loop
# seconds: 240 900
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
[ -x "$UMBRACTL" ] || die "umbractl is not built"

# expect WHAT WANTED GOT
expect() {
	[ "$2" = "$3" ] || die "$1: expected \"$2\", got \"$3\""
}

# json EXPRESSION: of standard input, parsed as `j`.
json() {
	"$PYTHON" -c 'import json, sys; j = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1" || die "not JSON"
}

# refuses WORDS COMMAND...: it fails and says so.
refuses() {
	local words=$1
	shift
	"$@" >"$T/out" 2>&1 && die "should have failed: $*"
	grep -q "$words" "$T/out" || die "$*: \"$words\" expected in: $(cat "$T/out")"
}

used() {
	sync -f "$MNT"
	df --output=used -B1 "$MNT" | tail -n1
}

pool_make 1G -L exec-test
say "info and stat"
expect "label of the pool" exec-test "$("$UMBRACTL" info --json "$POOL" | json 'j["label"]')"
pool_mount
expect "label of the mount" exec-test "$("$UMBRACTL" info --json "$MNT" | json 'j["label"]')"
expect "keys of both" "$("$UMBRACTL" info --json "$POOL" | json 'list(j)')" \
	"$("$UMBRACTL" info --json "$MNT" | json 'list(j)')"
"$UMBRACTL" info "$MNT" | grep -q '^label *exec-test$' || die "info for people"
refuses "neither a pool nor" "$UMBRACTL" info /proc
refuses "not on a mounted umbrafs" "$UMBRACTL" stat /

say "clone, map, du"
head -c 20000000 /dev/urandom >"$MNT/a"
chmod 640 "$MNT/a"
before=$(used)
for i in 1 2 3; do
	"$UMBRACTL" clone "$MNT/a" "$MNT/c$i" || die "clone"
done
cmp "$MNT/a" "$MNT/c3" || die "the clone differs"
expect "mode" 640 "$(stat -c %a "$MNT/c1")"
[ $(($(used) - before)) -lt 1000000 ] || die "clones take space"
expect "shared bytes of map" 20000768 "$("$UMBRACTL" map --json "$MNT/a" | json 'j["shared_bytes"]')"
expect "du of a part" "0 20000768" \
	"$("$UMBRACTL" du --json -c "$MNT/a" "$MNT/c1" | json '"%d %d" % (j[-1]["exclusive_bytes"], j[-1]["shared_bytes"])')"
expect "du of all" "80003072 20000768 20000768" "$("$UMBRACTL" du --json -r "$MNT" |
	json '"%d %d %d" % tuple(j[0][k + "_bytes"] for k in ("referenced", "physical", "exclusive"))')"
refuses "File exists" "$UMBRACTL" clone "$MNT/a" "$MNT/c1"
refuses "different filesystems\|not on a mounted" "$UMBRACTL" clone "$MNT/a" "$MEM/x"
[ -e "$MEM/x" ] && die "a refused clone leaves its destination"

say "a file of many extents, shared by its root, once opened through a view"
head -c 60000000 /dev/urandom >"$MEM/big"
cp "$MEM/big" "$MNT/big"
"$UMBRACTL" clone "$MNT/big" "$MNT/big2" || die "clone"
cmp "$MNT/big" "$MNT/big2" || die "the large clone differs"
owners='" ".join(sorted({str(e["refs"]) for e in j["extents"]}))'
expect "owners of two" 2 "$("$UMBRACTL" map --json "$MNT/big" | json "$owners")"
"$UMBRACTL" clone "$MNT/big2" "$MNT/big3" || die "clone"
expect "owners of three" 3 "$("$UMBRACTL" map --json "$MNT/big2" | json "$owners")"
expect "shared bytes" 60002304 "$("$UMBRACTL" map --json "$MNT/big3" | json 'j["shared_bytes"]')"
rm "$MNT/big2" "$MNT/big3"
stat -f "$MNT" >/dev/null
expect "owners of one" 1 "$("$UMBRACTL" map --json "$MNT/big" | json "$owners")"
rm "$MNT/big"

say "du foretells what removing frees"
printf x | dd of="$MNT/c2" bs=1 seek=9000000 conv=notrunc status=none
"$UMBRACTL" clone "$MNT/c2" "$MNT/c4" || die "clone of a clone"
expect "exclusive of the changed two" 4096 \
	"$("$UMBRACTL" du --json -c "$MNT/c2" "$MNT/c4" | json 'j[-1]["exclusive_bytes"]')"
expect "exclusive of the first three" 4096 \
	"$("$UMBRACTL" du --json -c "$MNT/a" "$MNT/c1" "$MNT/c3" | json 'j[-1]["exclusive_bytes"]')"

say "dedupe"
cp --reflink=never "$MNT/a" "$MNT/copy" 2>/dev/null || cat "$MNT/a" >"$MNT/copy"
cat "$MNT/a" >"$MNT/near"
printf x | dd of="$MNT/near" bs=1 seek=9000000 conv=notrunc status=none
cp "$MNT/near" "$MEM/near"
expect "all of a copy" 20000000 "$("$UMBRACTL" dedupe --json "$MNT/a" "$MNT/copy" | json 'j[0]["shared_bytes"]')"
"$UMBRACTL" dedupe "$MNT/a" "$MNT/near" >/dev/null || die "dedupe"
cmp "$MNT/near" "$MEM/near" || die "dedupe changed content"
expect "what differs stays" True "$("$UMBRACTL" du --json "$MNT/near" | json '0 < j[0]["exclusive_bytes"] <= 65536')"
refuses "same file" "$UMBRACTL" dedupe "$MNT/a" "$MNT/a"
rm "$MNT"/c? "$MNT/copy" "$MNT/near"

if [ "$SMOKE" = 1 ]; then
	pool_finish
	exit 0
fi

say "clone -r keeps everything"
mkdir -p "$MNT/tree/sub" "$MNT/tree/empty"
(
	cd "$MNT/tree" || exit 1
	cp -a /usr/include/linux sub/ 2>/dev/null || cp -a /etc/. sub/ 2>/dev/null
	mkfifo fifo && mknod null c 1 3 && mknod block b 7 0
	ln -s ../nowhere dangling && ln dangling dangling2
	echo text >"$(printf 'odd\nname \377')" && ln "$(printf 'odd\nname \377')" hard
	chown 55:66 hard && chmod 6755 hard && touch -d 2001-02-03 hard
	touch -h -d 2002-02-03 dangling
	mkdir closed && echo x >closed/f && chmod 555 closed && mkdir -m 0 shut
	truncate -s 10M sparse && chmod 1777 sub
	"$PYTHON" -c '
import os
os.setxattr("hard", "user.one", b"1")
os.setxattr("sub", "trusted.two", b"2")
for i in range(14):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
open("deep", "w").write("deep")
os.link("deep", "deep2")
' || exit 1
	! command -v setfacl >/dev/null || setfacl -m u:1000:rwx,d:u:1001:rx sub
) || die "cannot make the tree"
"$UMBRACTL" clone -r "$MNT/tree" "$MNT/new" || die "clone -r"
"$PYTHON" "$LIB/treecmp.py" "$MNT/tree" "$MNT/new" || die "the cloned tree differs"
expect "nothing beside it" "" "$(find "$MNT" -maxdepth 1 -name '.*partial*')"
expect "blocks shared with the original" True \
	"$("$UMBRACTL" du --json -r "$MNT/new" | json 'j[0]["exclusive_bytes"] == 0')"
refuses "File exists" "$UMBRACTL" clone -r "$MNT/tree" "$MNT/new"
refuses "lies inside" "$UMBRACTL" clone -r "$MNT/tree" "$MNT/tree/sub/new"

say "a tree deeper than a path can be long"
"$PYTHON" - "$MNT" "$(long 200 3000)" <<'END' || die "cannot make the deep tree"
import os, sys
os.chdir(sys.argv[1])
for name in ["deep"] + ["d" * 200] * int(sys.argv[2]):
    os.mkdir(name)
    os.chdir(name)
open("bottom", "w").write("reached")
os.link("bottom", "link")
END
"$UMBRACTL" clone -r "$MNT/deep" "$MNT/deep2" || die "clone -r of a deep tree"
"$PYTHON" - "$MNT" "$(long 200 3000)" <<'END' || die "the deep tree is not what it was"
import os, sys
os.chdir(sys.argv[1])
for name in ["deep2"] + ["d" * 200] * int(sys.argv[2]):
    os.chdir(name)
assert open("bottom").read() == "reached"
assert os.stat("bottom").st_ino == os.stat("link").st_ino
END
rm -rf "$MNT/deep" "$MNT/deep2"

say "clone -r is undone when it cannot end"
mkdir "$MNT/big"
for i in $(seq 20); do "$UMBRACTL" clone -r "$MNT/tree" "$MNT/big/$i" || die "clone -r"; done
before=$(used)
"$UMBRACTL" clone -r "$MNT/big" "$MNT/big2" 2>/dev/null &
pid=$!
for ((i = 0; i < 500; i++)); do
	[ -n "$(find "$MNT"/.big2.partial-* -mindepth 2 -maxdepth 2 2>/dev/null | head -n1)" ] && break
	sleep 0.01
done
kill -TERM $pid
wait $pid
expect "status after SIGTERM" 143 $?
expect "nothing is left" "" "$(find "$MNT" -maxdepth 1 -name '*big2*')"
sleep 0.5
[ $(($(used) - before)) -lt 1000000 ] || die "an undone clone takes space"
say "clone -r killed at random moments is undone, at once or by the next"
RANDOM=$SEED
for ((i = 0; i < $(long 6 100); i++)); do
	"$UMBRACTL" clone -r "$MNT/big" "$MNT/big2" 2>/dev/null &
	pid=$!
	sleep "0.$(printf %03d $((RANDOM % 400)))"
	# Every other time what would undo it is killed, too.
	[ $((i % 2)) = 0 ] || kill -9 $(pgrep -P $pid) 2>/dev/null
	kill -9 $pid 2>/dev/null
	wait $pid 2>/dev/null
	if [ $((i % 2)) = 0 ]; then
		for ((n = 0; n < 1000; n++)); do
			[ -e "$MNT/.big2.partial-$pid" ] || break
			sleep 0.02
		done
		[ ! -e "$MNT/.big2.partial-$pid" ] || die "a killed clone is not undone"
	fi
	[ ! -e "$MNT/big2" ] || rm -r "$MNT/big2"
done
"$UMBRACTL" clone -r "$MNT/big" "$MNT/big2" 2>"$T/err" || die "clone -r after killed ones: $(cat "$T/err")"
expect "nothing is left of them" "" "$(find "$MNT" -maxdepth 1 -name '.big2*')"
"$PYTHON" "$LIB/treecmp.py" "$MNT/big" "$MNT/big2" || die "the clone made after killed ones differs"

say "a directory that is being filled is no left-over"
mkdir "$MNT/.big3.partial-1"
"$PYTHON" -c 'import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
time.sleep(60)' "$MNT/.big3.partial-1" &
pid=$!
for ((n = 0; n < 500; n++)); do
	flock -n "$MNT/.big3.partial-1" true || break
	sleep 0.02
done
"$UMBRACTL" clone -r "$MNT/tree" "$MNT/big3" || die "clone -r"
[ -d "$MNT/.big3.partial-1" ] || die "another's directory was removed"
kill $pid
wait $pid 2>/dev/null
rm -r "$MNT/big3" "$MNT/big2" "$MNT/.big3.partial-1"

say "a terminal sees progress"
if command -v script >/dev/null; then
	script -qec "$UMBRACTL clone -r $MNT/big $MNT/big2" "$T/typescript" >/dev/null </dev/null || die "clone -r on a terminal"
	grep -q '[0-9] entries, [0-9]* files, ' "$T/typescript" || die "no progress: $(cat "$T/typescript")"
	rm -r "$MNT/big2"
fi

say "a clone of a file is whole or absent"
truncate -s 1G "$MNT/sparse"
"$PYTHON" -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for i in range(20000):
    os.pwrite(fd, b"x", i * 16384)' "$MNT/sparse"
for ((i = 0; i < $(long 10 100); i++)); do
	timeout -s KILL "0.$(printf %03d $((RANDOM % 20 + 1)))" "$UMBRACTL" clone "$MNT/sparse" "$MNT/sparse2" 2>/dev/null
	[ ! -e "$MNT/sparse2" ] || cmp "$MNT/sparse" "$MNT/sparse2" || die "a killed clone has part of it"
	rm -f "$MNT/sparse2"
done

setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null && {
	mkdir -m 777 "$MNT/user"
	refuses "not permitted\|denied" setpriv --reuid 65534 --regid 65534 --clear-groups \
		"$UMBRACTL" clone -r "$MNT/tree" "$MNT/user/t"
	expect "nothing is left of a user's" "" "$(ls -A "$MNT/user")"
}
pool_finish
