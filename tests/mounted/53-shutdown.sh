#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The shutdown ioctl in its three modes: everything fails with EIO until the next mount, which shows everything
# that was acknowledged. File handles survive remounts.
# backends: dax file
# seconds: 120 300
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

shutdown_fs() { # MODE, as XFS_IOC_GOINGDOWN
	"$PYTHON" - "$MNT" "$1" <<'EOF'
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587D, struct.pack("I", int(sys.argv[2])))
EOF
}

pool_make 64M
for mode in 0 1 2; do
	pool_mount
	for ((i = 0; i < 50; i++)); do
		echo "content $mode $i" >"$MNT/f-$mode-$i" || die "write"
	done
	mv "$MNT/f-$mode-1" "$MNT/moved-$mode"
	setpriv --reuid 65534 --clear-groups "$PYTHON" - "$MNT" <<'EOF' || die "an ordinary user may shut down"
import fcntl, os, struct, sys
try:
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack("I", 2))
except PermissionError:
    sys.exit(0)
sys.exit(1)
EOF
	shutdown_fs $mode || die "mode $mode: the ioctl failed"
	for what in 'touch new' 'mkdir d' "rm f-$mode-2" "mv f-$mode-3 g" "truncate -s 0 f-$mode-4"; do
		# shellcheck disable=SC2086
		(cd "$MNT" && $what) 2>"$T/err" && die "mode $mode: $what works after the shutdown"
		grep -q 'Input/output error' "$T/err" || die "mode $mode: $what: $(cat "$T/err")"
	done
	pool_umount
	pool_fsck
	pool_mount
	[ "$(cat "$MNT/moved-$mode")" = "content $mode 1" ] || die "mode $mode: the rename is lost"
	for ((i = 2; i < 50; i++)); do
		[ "$(cat "$MNT/f-$mode-$i")" = "content $mode $i" ] || die "mode $mode: file $i is lost"
	done
	[ ! -e "$MNT/new" ] || die "mode $mode: what was refused is there"
	pool_finish
done

# ---- handles, as an NFS server keeps them --------------------------------------------------------------
cat >"$T/handle.py" <<'EOF'
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]
def take(path):
    h, mid = Handle(128), ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), ctypes.byref(h), ctypes.byref(mid), 0):
        sys.exit("name_to_handle_at: " + os.strerror(ctypes.get_errno()))
    return struct.pack("Ii128s", h.bytes, h.type, bytes(h.data))
def look(mount, raw):
    n, t, d = struct.unpack("Ii128s", raw)
    h = Handle(n, t, (ctypes.c_ubyte * 128)(*d))
    root = os.open(mount, os.O_RDONLY)
    return libc.open_by_handle_at(root, ctypes.byref(h), os.O_RDONLY), ctypes.get_errno()
if sys.argv[1] == "take":
    open(sys.argv[3], "wb").write(take(sys.argv[2]))
else:
    fd, err = look(sys.argv[2], open(sys.argv[3], "rb").read())
    print(os.read(fd, 100).decode() if fd >= 0 else os.strerror(err), end="")
EOF
pool_mount
mkdir -p "$MNT/a/b"
echo by-handle >"$MNT/a/b/file"
"$PYTHON" "$T/handle.py" take "$MNT/a/b/file" "$T/handle" || die "name_to_handle_at"
mv "$MNT/a/b/file" "$MNT/elsewhere"
pool_remount
[ "$("$PYTHON" "$T/handle.py" look "$MNT" "$T/handle")" = by-handle ] || die "the handle is lost by a remount"
pool_kill_check_mount
[ "$("$PYTHON" "$T/handle.py" look "$MNT" "$T/handle")" = by-handle ] || die "the handle is lost by a kill"
rm "$MNT/elsewhere"
echo new >"$MNT/new"
pool_remount
[ "$("$PYTHON" "$T/handle.py" look "$MNT" "$T/handle")" = "Stale file handle" ] || die "a handle of a removed file finds one"
pool_finish
