#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Shared views: what is shared with each setting of share=, sendfile and splice, thousands of views open at once,
# death of the guardian.
# backends: dax
# seconds: 180 300
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

# A file of 64 KiB and two clones of it.
make_clones() {
	dd if=/dev/urandom of="$MNT/src" bs=64K count=1 2>/dev/null
	"$UMBRACTL" clone -q "$MNT/src" "$MNT/one" && "$UMBRACTL" clone -q "$MNT/src" "$MNT/two" || die "clone"
}
# Opens through views that reading a file takes: 1 or 0.
view_opens_of() {
	local before
	before=$(counter view_opens)
	cmp "$1" "$MNT/src" >&2 || die "$1 differs"
	echo $(($(counter view_opens) - before))
}
# The source is read through a view as well, when it may be.
expect_opens() {
	local n
	n=$(view_opens_of "$1")
	[ "$n" = "$2" ] || die "$3: $n opens through views, expected $2"
}

pool_make 512M
say "share=off, immutable, all; cache=none"
pool_mount share=off
make_clones
expect_opens "$MNT/one" 0 "share=off"
pool_umount
pool_mount share=immutable
expect_opens "$MNT/one" 0 "share=immutable"
chattr +i "$MNT/one" || die "chattr"
expect_opens "$MNT/one" 1 "share=immutable, an immutable file"
chattr -i "$MNT/one"
pool_umount
pool_mount share=all
expect_opens "$MNT/one" 2 "share=all"
pool_umount
pool_mount cache=none
expect_opens "$MNT/one" 0 "cache=none"
grep -q "clones do not share page cache: with cache=none" "$LOG" || die "nothing says why nothing is shared"
pool_umount

say "sendfile, splice"
pool_mount
"$PYTHON" - "$MNT" <<'EOF' || die "sendfile or splice"
import os, sys
mnt = sys.argv[1]
want = open(mnt + "/src", "rb").read()
one, two = os.open(mnt + "/one", os.O_RDONLY), os.open(mnt + "/two", os.O_RDONLY)
out = os.memfd_create("out")
done = 0
while done < len(want):
    done += os.sendfile(out, one, done, len(want) - done)
assert os.pread(out, len(want) + 1, 0) == want, "sendfile"
r, w = os.pipe()
got = b""
while len(got) < len(want):
    n = os.splice(two, w, 16384, offset_src=len(got))
    got += os.read(r, n)
assert got == want, "splice"
EOF
[ "$(counter view_opens)" -ge 2 ] || die "sendfile and splice were not from views"
rm -f "$MNT"/*

say "thousands of views at once"
"$PYTHON" - "$MNT" "$UMBRACTL" "$(long 3000 12000)" "$LIB" <<'EOF' || die "many views"
import os, resource, subprocess, sys, time
sys.path.insert(0, sys.argv[4])
import door
mnt, ctl, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (n + 100, n + 100))

def counters():
    out = subprocess.run([ctl, "stat", mnt], text=True, capture_output=True, check=True).stdout
    values = dict(line.split()[:2] for line in out.splitlines())
    return int(values["views"]), int(values["backing_ids"])

for i in range(n):
    src = os.open(f"{mnt}/a{i}", os.O_RDWR | os.O_CREAT)
    dst = os.open(f"{mnt}/b{i}", os.O_RDWR | os.O_CREAT)
    os.write(src, i.to_bytes(8, "little") * 4096)
    door.clone(src, dst)
    os.close(src)
    os.close(dst)
time.sleep(0.5)  # writers' releases
fds = [os.open(f"{mnt}/b{i}", os.O_RDONLY) for i in range(n)]
assert counters() == (n, n), f"open: {counters()}"
for i, fd in enumerate(fds):
    assert os.pread(fd, 8, 32760) == i.to_bytes(8, "little"), f"file {i} shows another's bytes"
for fd in fds:
    os.close(fd)
for _ in range(100):
    if max(counters()) <= 1024:
        break
    time.sleep(0.1)
assert max(counters()) <= 1024, f"closed: {counters()}"
EOF
rm -f "$MNT"/*
stat -f "$MNT" >/dev/null
[ "$(counter views)" = 0 ] || die "$(counter views) views are left without a file"

say "the guardian killed"
make_clones
expect_opens "$MNT/one" 2 "with a guardian"
guard=$(pgrep -x umbrafs-guard -P "$(cat "$T/pid")") || die "no guardian"
kill -9 "$guard"
for ((i = 0; i < 100; i++)); do
	grep -q "the guardian was killed" "$LOG" && break
	sleep 0.1
done
grep -q "the guardian was killed" "$LOG" || die "nobody misses the guardian"
expect_opens "$MNT/two" 0 "without a guardian"
pool_finish
