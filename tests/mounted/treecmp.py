#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""treecmp A B: compares what diff does not: type, mode, owner, size, times, device numbers, hard links,
symlinks, extended attributes and ACLs (they are attributes too) of two trees. Prints up to twenty
differences and ends with the number of entries compared."""
import os
import stat
import sys

# Set by the filesystem or the system it is on, not by who wrote the tree.
SKIPPED = ("security.selinux", "system.nfs4_acl")


def xattrs(path):
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {
        n: os.getxattr(path, n, follow_symlinks=False)
        for n in names
        if n not in SKIPPED
    }


def facts(path, links, root):
    st = os.lstat(path)
    rel = os.path.relpath(path, root)
    out = {
        "mode": oct(st.st_mode),
        "uid": st.st_uid,
        "gid": st.st_gid,
        "mtime": st.st_mtime_ns,
        "xattrs": xattrs(path),
    }
    if not stat.S_ISDIR(st.st_mode):
        out["size"] = st.st_size
        # Links to what lies outside the tree are not part of it.
        if st.st_nlink > 1:
            out["linked with"] = links.setdefault((st.st_dev, st.st_ino), rel)
    if stat.S_ISLNK(st.st_mode):
        out["target"] = os.readlink(path)
    if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        out["rdev"] = st.st_rdev
    return out


def entries(root):
    yield root
    for base, dirs, files in os.walk(root):
        dirs.sort()
        for name in sorted(dirs + files):
            yield os.path.join(base, name)


def main():
    a, b = sys.argv[1], sys.argv[2]
    links_a, links_b = {}, {}
    # Every inode of the source with links: which names inside the tree belong to it.
    count = bad = 0
    seen = set()
    for path in entries(a):
        rel = os.path.relpath(path, a)
        other = os.path.normpath(os.path.join(b, rel))
        seen.add(rel)
        count += 1
        try:
            fa, fb = facts(path, links_a, a), facts(other, links_b, b)
        except OSError as e:
            print(f"{rel}: {e}")
            bad += 1
            continue
        for key in fa.keys() | fb.keys():
            # A link whose other names are outside the tree arrives as a file of its own.
            if key == "linked with" and (fa.get(key, rel) == fb.get(key, rel)):
                continue
            if fa.get(key) != fb.get(key):
                bad += 1
                if bad <= 20:
                    print(f"{rel}: {key} is {fb.get(key)!r}, must be {fa.get(key)!r}")
    for path in entries(b):
        rel = os.path.relpath(path, b)
        if rel not in seen:
            bad += 1
            if bad <= 20:
                print(f"{rel}: only in {b}")
    print(f"{count} entries compared, {bad} differences")
    return 1 if bad else 0


sys.exit(main())
