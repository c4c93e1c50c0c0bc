# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Shared by the tests with bad memory.

# lba_of FILE PAGE: block of the pool that a page of a file lies in.
lba_of() {
	"$UMBRACTL" map --json "$1" | "$PYTHON" -c '
import json, sys
page = int(sys.argv[1])
j = json.load(sys.stdin)
for e in j["extents"]:
    first = e["offset"] // 4096
    if first <= page < first + e["length"] // 4096:
        print(e["lba"] + page - first)
        sys.exit(0)
sys.exit(1)' "$2"
}

# device_offset BYTE: where that byte of the pool file lies on the block device below.
device_offset() {
	filefrag -b4096 -v "$POOL" | awk -v want=$(($1 / 4096)) '
		$1 ~ /^[0-9]+:$/ {
			gsub(/[.:]/, " ")
			if ($2 <= want && want <= $3) { printf "%d\n", ($4 + want - $2) * 4096; found = 1 }
		}
		END { exit !found }'
}

# wait_log WORDS: at most 20 s.
wait_log() {
	local i
	for ((i = 0; i < 200; i++)); do
		grep -q "$1" "$LOG" && return 0
		sleep 0.1
	done
	die "the log does not say: $1"
}

# exactly_lost FILE GOOD PAGE: that page of the file gives EIO to read(2) and SIGBUS to a load, and all others are as they
# were.
exactly_lost() {
	sync -f "$1"
	echo 3 >/proc/sys/vm/drop_caches
	"$PYTHON" - "$@" <<'END' || die "not exactly page $3 of $1 is lost"
import errno, mmap, os, sys
fd, good, lost = os.open(sys.argv[1], os.O_RDONLY), open(sys.argv[2], "rb").read(), int(sys.argv[3])
bad = 0
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
def complain(what):
    global bad
    print(what)
    bad = 1
for page in range(len(good) // 4096):
    try:
        got = os.pread(fd, 4096, page * 4096)
        if page == lost:
            complain("page %d can be read, %s" % (page, "as it was" if got == good[page * 4096:][:4096] else "wrong"))
        elif got != good[page * 4096:][:4096]:
            complain("page %d is wrong" % page)
    except OSError as e:
        if page != lost or e.errno != errno.EIO:
            complain("page %d: %s" % (page, e))
for page, signal in ((lost, 7), (lost + 1, 0), (lost - 1, 0)):
    pid = os.fork()
    if pid == 0:
        m = mmap.mmap(fd, len(good), prot=mmap.PROT_READ)
        os._exit(m[page * 4096] != good[page * 4096])
    status = os.waitpid(pid, 0)[1]
    if status != signal:
        complain("a load from page %d: status %d" % (page, status))
sys.exit(bad)
END
}

# health_is NAME VALUE: at most 20 s.
health_is() {
	local i
	for ((i = 0; i < 100; i++)); do
		"$UMBRACTL" health --json "$MNT" >"$T/health" || die "umbractl health"
		grep -q "^ *\"$1\": *$2,\$" "$T/health" && return 0
		sleep 0.2
	done
	die "health does not come to $1 $2: $(cat "$T/health")"
}

# event_is LBA DONE KIND [PATH]: health has exactly one event of that block; at most 20 s, as a record is counted before the
# thread that tells of it has found its owners.
event_is() {
	local i got
	for ((i = 0; i < 100; i++)); do
		"$UMBRACTL" health --json "$MNT" >"$T/health" || die "umbractl health"
		got=$("$PYTHON" - "$T/health" "$@" 2>&1 <<'END'
import json, sys
events = [e for e in json.load(open(sys.argv[1]))["events"] if e["lba"] == int(sys.argv[2])]
got = [[e["done"], e["kind"]] + [f["path"] for f in e["files"]][:len(sys.argv) - 5] for e in events]
print(got)
sys.exit(got != [sys.argv[3:]])
END
		) && return 0
		sleep 0.2
	done
	die "not the event of block $1 that there should be, but $got: $(cat "$T/health")"
}

# node_of KIND: the primary copy of some tree node of that kind (src/pool/format.h), in use or not.
node_of() {
	"$PYTHON" - "$POOL" "$1" <<'END'
import os, struct, sys
kind, fd = int(sys.argv[2]), os.open(sys.argv[1], os.O_RDONLY)
for lba in range(os.fstat(fd).st_size // 4096):
    try:
        head = os.pread(fd, 64, lba * 4096)
    except OSError: # a bad one
        continue
    if struct.unpack("<IB11xQ", head[:24]) == (0x424d55 | kind << 24, kind, lba):
        print(lba)
        sys.exit(0)
sys.exit(1)
END
}

# list_bad LBA: from now on the kernel's list has that block of the pool.
list_bad() {
	local offset
	offset=$(device_offset $(($1 * 4096))) || die "where is block $1?"
	echo "$((offset / 512)) 8" >/sys/block/pmem0/badblocks || die "cannot list a bad block"
	wait_log "block $1 is on the kernel's list of bad blocks"
}

# physical BYTE: the address of that byte of the pool.
physical() {
	local base offset=$1
	if [ "$BACKEND" = devdax ]; then
		base=$(cat /sys/bus/dax/devices/dax1.0/resource)
	else
		offset=$(device_offset "$offset") || return 1
		base=$(cat /sys/block/pmem0/device/resource)
	fi
	[ -n "$base" ] && printf '0x%x\n' $((base + offset))
}

# tell COMMAND: to the machine's monitor.
tell() {
	echo "$1" >"$OUT/tell.new" && mv "$OUT/tell.new" "$OUT/tell"
}
