/* SPDX-License-Identifier: BSD-3-Clause */
/* Ioctls of a mounted umbrafs, for umbractl. All apply to an open file or directory of the mount;
 * the required modes of the descriptor are given with each. Sizes fit _IOC (16 KiB). */
#ifndef UM_FUSE_IOCTL_H
#define UM_FUSE_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define UM_IOC 'U'

/* 2: a clone that makes a file longer takes two steps. */
#define UM_IOC_ABI 2u

/* Identifies the pool. Any descriptor. Also serves as the test for "is this an umbrafs file". */
struct um_ioc_info {
	__u64 abi;       /* out: UM_IOC_ABI */
	__u8 uuid[16];   /* out */
	__u64 ino;       /* out */
	__u64 daemon;    /* out: process id in the daemon's namespace */
	char pool[3072]; /* out: absolute path */
};
#define UM_IOC_INFO _IOR(UM_IOC, 1, struct um_ioc_info)

/* Text pages: JSON of live counters (what 0), pool information (1), health (2, root only). Read
 * until len < sizeof text. */
struct um_ioc_text {
	__u32 what;  /* in */
	__u32 off;   /* in: bytes to skip */
	__u32 len;   /* out: bytes in text */
	__u32 total; /* out */
	char text[8192];
};
#define UM_IOC_TEXT _IOWR(UM_IOC, 2, struct um_ioc_text)

/* Extents of the open file (readable descriptor). */
struct um_ioc_extent {
	__u64 off, lba, len; /* bytes, block number, bytes */
	__u32 refs;
	__u32 flags; /* UM_EXT_* */
};
#define UM_EXT_SHARED 1u
#define UM_EXT_UNWRITTEN 2u
#define UM_EXT_INLINE 4u
#define UM_EXT_LAST 8u
struct um_ioc_map {
	__u64 off, len; /* in: range in bytes */
	__u32 count;    /* out */
	__u32 pad;
	struct um_ioc_extent ext[256];
};
#define UM_IOC_MAP _IOWR(UM_IOC, 3, struct um_ioc_map)

/*
 * Clone or dedupe between two inodes of this mount. The descriptor is the destination. The daemon
 * cannot see the caller's source descriptor, so the source is proven by a token: UM_IOC_TOKEN on
 * the readable source descriptor gives a random 128-bit number, good for its inode, until used or
 * 60 s. Stores through mappings of the source that only the kernel has yet are the caller's matter:
 * sync_file_range(2) before UM_IOC_TOKEN.
 *
 * A clone is not made by the ioctl (unless there is nothing to do), but within a fallocate(2), where
 * the kernel has the inode locked, so that nobody writes, and sets a new size itself (src/DESIGN.md,
 * "Sizes the kernel must know"). The ioctl keeps it and answers UM_CLONE_ARMED; then it is made by
 *
 *     fallocate(destination, 0, dst_off + done - 1, 1)
 *
 * of the same thread on the same open file, which returns the clone's errors. -EAGAIN: the source's
 * size has changed since, nothing was done: begin again. One clone is kept per open file (-EBUSY if
 * it is another thread's), until it is made, given up with UM_CLONE_DISARM, or the file is closed.
 * um_ioc_clone() in fuse/clone.h does all this.
 *
 * UM_CLONE_RANGE is -EOPNOTSUPP on a mount with the option writeback, where sizes and times are the
 * kernel's: copy_file_range(2) then makes the same clone.
 */
struct um_ioc_token {
	__u8 token[16]; /* out */
};
#define UM_IOC_TOKEN _IOR(UM_IOC, 4, struct um_ioc_token)
struct um_ioc_clone {
	__u8 token[16];              /* in: the source; DISARM: that with which it was armed */
	__u64 src_off, len, dst_off; /* in: bytes; len 0: to the end of the source */
	__u32 op;                    /* in: UM_CLONE_* */
	__s32 status;                /* out, DEDUPE: 0 same, 1 differs (FILE_DEDUPE_RANGE_*) */
	__u64 done;                  /* out: bytes; ARMED: that it will be */
};
#define UM_CLONE_RANGE 2u  /* descriptor must be writable */
#define UM_CLONE_DEDUPE 1u /* writable, or the caller owns the file, could write it, or is root */
#define UM_CLONE_DISARM 3u
#define UM_CLONE_ARMED 1 /* status after RANGE: see above */
#define UM_IOC_CLONE _IOWR(UM_IOC, 5, struct um_ioc_clone)

/* The references of one leaf of the open file's tree; see umbra_owners(). Readable descriptor. */
struct um_ioc_owner_node {
	__u64 lba, end;
	__u32 parents;
	__u32 pad;
};
struct um_ioc_owner_run {
	__u64 lba;
	__u32 len, refs;
};
struct um_ioc_owners {
	__u64 first; /* in: file block */
	__u64 next;  /* out: file block to continue with, all ones: none */
	__u64 blocks, inline_bytes;
	__u32 nnode, nrun;
	struct um_ioc_owner_node node[12];
	struct um_ioc_owner_run run[768];
};
#define UM_IOC_OWNERS _IOWR(UM_IOC, 6, struct um_ioc_owners)

/* Shadows: which shared blocks were handed to the kernel. Of the open file (readable descriptor),
 * or, for root, of a block of the pool. */
struct um_ioc_shadow {
	__u64 ino, off, lba, len; /* bytes, except the LBA */
	__u64 sharers;            /* shadows of its first block */
};
struct um_ioc_shadows {
	__u32 by_lba; /* in: 0: of the file in [at, at + len); 1: of block `at`, without the first len */
	__u32 count;   /* out */
	__u64 at, len; /* in */
	__u64 next;    /* out, of a file: where to continue, at + len when complete */
	struct um_ioc_shadow shadow[256];
};
#define UM_IOC_SHADOWS _IOWR(UM_IOC, 16, struct um_ioc_shadows)

/* Owners of a block through all trees, as umbra_lba_owners(): begin with zeros except for lba,
 * continue until done. Root only. */
struct um_ioc_lba_owner {
	__u64 ino, off;
	__u32 cached;
	__u32 pad;
};
struct um_ioc_lba_owners {
	__u64 lba;
	__u64 ino, key, seq;   /* in and out: the scan */
	__u64 inodes, damaged; /* in and out: sums */
	__u32 refs, count;     /* out: references to the block; owners in this answer */
	__u32 done, changed;   /* out; in and out: something was committed meanwhile */
	struct um_ioc_lba_owner owner[512];
};
#define UM_IOC_LBA_OWNERS _IOWR(UM_IOC, 17, struct um_ioc_lba_owners)

/* Paths of inodes, from the pool's root: begin with dir and cookie 0, continue until done. Root
 * only. */
struct um_ioc_paths {
	__u64 dir, cookie; /* in and out: the search */
	__u32 nino;        /* in */
	__u32 done;        /* out */
	__u32 len;         /* out: bytes in text */
	__u32 pad;
	__u64 ino[256];  /* in, ascending */
	char text[8192]; /* out: inode numbers of 8 bytes, each followed by a path and its NUL */
};
#define UM_IOC_PATHS _IOWR(UM_IOC, 18, struct um_ioc_paths)

/* The scrub, as umbra_scrub(). Root only, except for the status. */
struct um_ioc_scrub {
	__u32 op;    /* in: enum umbra_scrub_op */
	__u32 state; /* out: enum umbra_scrub_state */
	__u64 rate;  /* in, to start; out: bytes per second, 0: no limit */
	__u64 bytes, bad;
	__u32 permille;
	__u32 msec; /* since it was started */
};
#define UM_IOC_SCRUB _IOWR(UM_IOC, 19, struct um_ioc_scrub)

/* Enlarges the pool, as umbra_grow(). CAP_SYS_ADMIN. */
struct um_ioc_grow {
	__u64 size; /* in: bytes, all ones: all that the file or device has; out: the resulting size */
	__u64 was;    /* out */
	__u32 sparse; /* in: do not allocate a file in advance */
	__u32 pad;
};
#define UM_IOC_GROW _IOWR(UM_IOC, 21, struct um_ioc_grow)

/*
 * The kernel does not inform a FUSE server of a remount, so mount(8)'s helper does: before the
 * mount becomes writable, and when it has become read-only. CAP_SYS_ADMIN. Errors of
 * umbra_remount().
 */
struct um_ioc_remount {
	__u32 readonly; /* in */
	__u32 sync; /* in: what is on from now on, of what is spoken of; the kernel minds "sync" for writes only */
};
#define UM_REMOUNT_SYNC 1u
#define UM_REMOUNT_DIRSYNC 2u
#define UM_REMOUNT_NAMES(flags) ((flags) << 8) /* these are spoken of */
#define UM_IOC_REMOUNT _IOW(UM_IOC, 22, struct um_ioc_remount)

/* How the pool is served, for mounting it a second time. Any descriptor. */
struct um_ioc_mount {
	__u64 dev, ino; /* out: of the pool's file; for a device its own number, and 0 */
	__u32 readonly; /* out: the daemon changes nothing */
	__u32 pad;
	char options[2048]; /* out: those of the whole filesystem, as accepted by -o */
};
#define UM_IOC_MOUNT _IOR(UM_IOC, 23, struct um_ioc_mount)

/* For tests, with a daemon built for them (-Dpoison=true); root only. */
struct um_ioc_poison {
	__u64 lba;
	__s32 bit;    /* in: this bit flips; -1: the block fails */
	__u32 settle; /* in: wait until all known bad blocks have been handled, and do nothing else */
};
#define UM_IOC_POISON _IOW(UM_IOC, 32, struct um_ioc_poison)

/*
 * Clones the contents of a directory, many entries per request. The descriptor is that of the
 * destination, an open directory; the source is a directory of this mount by its inode number, as
 * open_by_handle_at(2) would open it. So this is for callers with all of root's privileges (user 0,
 * and in the daemon's user namespace the capabilities that ops_ioctl.c lists); others get -EPERM
 * and do it step by step. The caller made the destination through this mount: whether the mount is
 * read-only is not checked again.
 *
 * ENTRIES: everything but directories, with its metadata. Begin with cookie 0, continue until
 * `end`. Names that were not cloned are returned in `names` and left to the caller: directories,
 * files with several links, files that are open for writing (sync_file_range(2) first, as above),
 * and those that could not be cloned at once. META: the directory's own owner, mode, times,
 * extended attributes; -EOPNOTSUPP, -EEXIST: not at once.
 */
struct um_ioc_tree {
	__u64 src;            /* in */
	__u64 cookie;         /* in and out */
	__u64 bytes;          /* out: sizes of the files made */
	__u32 op;             /* in: UM_TREE_* */
	__u32 end;            /* out: all entries were visited */
	__u32 entries, files; /* out: made */
	__u32 count, len;     /* out: names, and their bytes with a NUL each */
	char names[8192];     /* out */
};
#define UM_TREE_ENTRIES 0u
#define UM_TREE_META 1u
#define UM_IOC_TREE _IOWR(UM_IOC, 20, struct um_ioc_tree)

#endif
