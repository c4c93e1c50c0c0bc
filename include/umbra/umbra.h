/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libumbra: the filesystem engine, usable without FUSE. Unless stated otherwise all functions are
 * thread-safe and return 0 (or a count) or a negative errno. Permission checks by mode and ACL are
 * the caller's responsibility (for FUSE the kernel does them); the engine enforces what only it
 * knows: immutable and append-only flags, link limits, names, space.
 *
 * Inodes are identified by number. A function documented with "references" returns an inode with a
 * lookup reference, as in FUSE: an unlinked inode exists until its lookups have been forgotten and
 * its opens released.
 */
#ifndef UMBRA_UMBRA_H
#define UMBRA_UMBRA_H

#include <dirent.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>

#include "umbra/types.h"

#define UMBRA_NAME_MAX 255u /* bytes, any but '/' and NUL */
#define UMBRA_LINK_MAX 2000000000u
#define UMBRA_SYMLINK_MAX 4095u
#define UMBRA_SIZE_MAX INT64_MAX /* largest file size, 2^63-1 bytes */

/* ---- a pool in use ------------------------------------------------------------------------------ */

enum umbra_data_mode {
	UMBRA_DATA_ATOMIC = 0,  /* every aligned 4 KiB of a write is all or nothing */
	UMBRA_DATA_INPLACE = 1, /* overwrites of unshared blocks go directly in place */
};
/* When file data is verified, in a pool with checksums of file data. */
enum umbra_data_csum { UMBRA_CSUM_READ = 0, UMBRA_CSUM_SCRUB = 1 };
enum umbra_atime { UMBRA_RELATIME = 0, UMBRA_NOATIME = 1, UMBRA_STRICTATIME = 2 };
/*
 * What happens when the journal cannot be written, or a barrier fails. RO, CONTINUE: changes fail
 * with -EROFS from then on, reads continue; with CONTINUE an operation whose journal record cannot
 * be written fails alone. SHUTDOWN: everything fails with -EIO. The next mount starts from the
 * durable state.
 */
enum umbra_errors { UMBRA_ERRORS_RO = 0, UMBRA_ERRORS_CONTINUE, UMBRA_ERRORS_SHUTDOWN };

struct umbra_options {
	bool readonly;
	bool try_lock; /* a pool in use is -EBUSY at once, without a message; else after a moment */
	bool claimed;  /* a block device that its mount claims (fuseblk): do not claim it here */
	enum umbra_data_mode data; /* always ATOMIC in a pool with data checksums or parity */
	enum umbra_data_csum data_csum;
	enum umbra_atime atime;
	enum umbra_errors errors;
	bool discard;            /* return freed space to the host automatically, as umbra_trim() */
	bool nodiratime;         /* reading a directory never sets its access time */
	unsigned commit_seconds; /* background commit of plain files; 0: 5 */
	unsigned busy_poll;      /* microseconds to poll before sleeping; 0: never */
	uint64_t shadow_mem;     /* bytes for shadows (see below); 0: 64 MiB, UMBRA_SHADOW_NONE */
};
#define UMBRA_SHADOW_NONE UINT64_MAX
/* Mounts the pool: replays the journal, starts the background thread. Errors of um_pool_open. */
int umbra_open(const char *path, const struct umbra_options *opt, struct umbra_fs **out);
/* The same over a pool image in memory, for tests; the memory stays the caller's. */
int umbra_open_image(
	void *base, uint64_t size, const struct umbra_options *opt, struct umbra_fs **out);
/*
 * Switches between read-only and writable. A pool that was opened read-only is reopened for
 * writing: -EBUSY if another process has it open, -EROFS or -EACCES if it cannot be written; on
 * errors it stays as it was. No other call may be in progress meanwhile. Switching to read-only has
 * no such condition: afterwards no operation that changes anything succeeds, and everything has
 * been written home, but this process keeps the pool locked.
 */
int umbra_remount(struct umbra_fs *fs, bool readonly);
/* Closes cleanly. Everything is durable when it returns. */
int umbra_close(struct umbra_fs *fs);
/* Closes without writing anything more, as a crash would. For tests. */
void umbra_abandon(struct umbra_fs *fs);

struct umbra_info {
	char path[4096], label[65], uuid[37], kind[16];
	uint64_t size, total_blocks, free_blocks, inodes, mounts;
	uint32_t version, copies;
	uint64_t compat, ro_compat, incompat;
	uint64_t journal_bytes, replayed;
	int64_t made_sec, mount_sec;
	bool readonly, clean;
	uint64_t dev, ino; /* of the pool's file; for a device its own number, and 0 */
	bool data_csum;    /* file data has checksums */
	bool parity;
	uint32_t errors;
	uint64_t retired; /* blocks whose memory is bad, no longer used */
};
int umbra_info(struct umbra_fs *fs, struct umbra_info *out);
/* The same for a pool that may or may not be mounted: reads superblock and pool root. */
int umbra_info_pool(const char *path, struct umbra_info *out);

/* Live counters, as name/value pairs: fn is called for each. */
typedef void umbra_stat_fn(void *arg, const char *name, uint64_t value);
void umbra_stat(struct umbra_fs *fs, umbra_stat_fn *fn, void *arg);

/*
 * Enlarges the pool, which stays in use, to `size` bytes (rounded down to whole chunks of 2 MiB and
 * to what makes a valid group), or with UMBRA_GROW_ALL to all that the file or device has. A file
 * is extended first and, unless `sparse`, allocated. *out_was, *out_size: the previous and the
 * resulting size, also after an error. It is no error if the pool already has this size. -EINVAL:
 * it is larger. -ENOSPC: the device is smaller, or the host of the file is full; -ENOMEM,
 * -EOPNOTSUPP: not possible while mounted; -E2BIG: it has grown too often.
 */
#define UMBRA_GROW_ALL UINT64_MAX
int umbra_grow(
	struct umbra_fs *fs, uint64_t size, bool sparse, uint64_t *out_was, uint64_t *out_size);

/*
 * Returns free space to the host: punches holes in a file, discards on a device. Each call handles
 * a bounded piece: start with zeros except for start, len and min, and call until done. What was
 * removed before the first call is included. -EOPNOTSUPP: not possible (a DAX device; a device
 * without discard). In a file on a DAX filesystem only whole chunks of 2 MiB are returned.
 */
struct umbra_trim {
	uint64_t start, len; /* range of the pool in bytes; advances */
	uint64_t min;   /* shorter runs of free bytes are skipped; at most 2 MiB takes effect */
	uint64_t bytes; /* out: returned so far */
	bool begun, done;
};
int umbra_trim(struct umbra_fs *fs, struct umbra_trim *trim);

/* f_bfree is exact to the block: waits, for a bounded time, for removed files being freed. */
int umbra_statfs(struct umbra_fs *fs, struct statvfs *out);
/* When it returns, everything acknowledged so far is on the medium. */
int umbra_sync(struct umbra_fs *fs);
/* As XFS_IOC_GOINGDOWN. 0: default (sync first), 1: sync the log first, 2: write nothing more. All
 * later calls that change anything fail with -EIO. */
int umbra_shutdown(struct umbra_fs *fs, unsigned mode);

struct umbra_mkfs_options {
	uint64_t size; /* bytes; a plain file is created or extended; 0: the size of the target */
	const char *label;   /* at most 64 bytes, or NULL */
	const uint8_t *uuid; /* 16 bytes, or NULL: random */
	unsigned copies;     /* metadata copies, 1 or 2; 0: 2 */
	bool force;          /* overwrite a foreign signature, or a pool */
	bool forget_bad;     /* with force: discard that pool's list of bad blocks */
	bool dry_run;        /* check and compute only */
	bool sparse;         /* plain file: do not allocate */
	bool data_csum;      /* checksums of file data */
	bool parity;         /* parity; takes a ninth of the space */
	uint32_t root_uid, root_gid;
	void (*progress)(void *arg, uint64_t done, uint64_t total); /* or NULL */
	void *arg;
	/* For reproducible pools (tests). */
	uint64_t hash_seed; /* of name hashes; 0: random */
	int64_t made_sec;   /* creation time; 0: now */
};
/*
 * Creates a pool. -EBUSY: in use; -EEXIST: a foreign signature, or a pool, without force; -ENOSPC:
 * smaller than the smallest pool; -EUCLEAN, with force: the bad block list of the existing pool
 * cannot be read; -EIO: a bad block cannot be rewritten where the new pool needs it. out (or NULL):
 * what was created. An image is overwritten as it is: a pool in it is not searched for bad blocks.
 */
int umbra_mkfs_image(void *base, uint64_t size, const struct umbra_mkfs_options *opt);
int umbra_mkfs(const char *path, const struct umbra_mkfs_options *opt, struct umbra_info *out);

/* ---- inodes --------------------------------------------------------------------------------------- */

struct umbra_cred {
	uid_t uid;
	gid_t gid;
	mode_t umask;    /* applied to new inodes unless a default ACL says otherwise */
	bool cap_fsetid; /* set-id bits survive writes; see umbra_setattr */
};

/* struct stat, plus what it lacks. */
struct umbra_attr {
	struct stat st;
	struct timespec btime;
	uint32_t generation;
	uint32_t flags; /* FS_*_FL */
};

/* "references": adds one lookup reference to the inode returned. */
int umbra_lookup(struct umbra_fs *fs, uint64_t parent, const char *name,
	struct umbra_attr *out);                  /* references; "." and ".." too */
int umbra_ref(struct umbra_fs *fs, uint64_t ino); /* one more lookup reference */
void umbra_forget(struct umbra_fs *fs, uint64_t ino, uint64_t n);
int umbra_getattr(struct umbra_fs *fs, uint64_t ino, struct umbra_attr *out);

#define UMBRA_SET_MODE (1u << 0)
#define UMBRA_SET_UID (1u << 1)
#define UMBRA_SET_GID (1u << 2)
#define UMBRA_SET_SIZE (1u << 3)
#define UMBRA_SET_ATIME (1u << 4)
#define UMBRA_SET_MTIME (1u << 5)
#define UMBRA_SET_CTIME (1u << 6)
#define UMBRA_SET_ATIME_NOW (1u << 7)
#define UMBRA_SET_MTIME_NOW (1u << 8)
#define UMBRA_SET_KILLPRIV                                                                         \
	(1u << 9) /* drop set-id bits and security.capability (chown, truncate) */
/* Times of earlier, permitted writes: set whatever the file's flags are by now. */
#define UMBRA_SET_OWED (1u << 10)
/* A change of mode also updates the mask of an access ACL; a change of size truncates or
 * extends. */
int umbra_setattr(struct umbra_fs *fs, uint64_t ino, const struct umbra_attr *attr, unsigned mask,
	struct umbra_attr *out);

/* New inodes. mode includes the type bits; set-gid and default ACLs are inherited from the parent.
 * All reference. */
int umbra_mknod(struct umbra_fs *fs, uint64_t parent, const char *name, mode_t mode, dev_t rdev,
	const struct umbra_cred *cred,
	struct umbra_attr *out); /* any type but symlink; directories too */
int umbra_symlink(struct umbra_fs *fs, uint64_t parent, const char *name, const char *target,
	const struct umbra_cred *cred, struct umbra_attr *out);
int umbra_tmpfile(struct umbra_fs *fs, uint64_t parent, mode_t mode, const struct umbra_cred *cred,
	struct umbra_attr *out); /* unlinked; umbra_link may link it */
int umbra_link(struct umbra_fs *fs, uint64_t ino, uint64_t parent, const char *name,
	struct umbra_attr *out); /* references */
int umbra_unlink(struct umbra_fs *fs, uint64_t parent, const char *name);
int umbra_rmdir(struct umbra_fs *fs, uint64_t parent, const char *name);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE of linux/fs.h; others -EINVAL. */
int umbra_rename(struct umbra_fs *fs, uint64_t parent, const char *name, uint64_t newparent,
	const char *newname, unsigned flags);
/* As RENAME_WHITEOUT: the old name becomes a character device 0/0, owned by cred, in the same
 * transaction. */
int umbra_rename_whiteout(struct umbra_fs *fs, uint64_t parent, const char *name,
	uint64_t newparent, const char *newname, unsigned flags, const struct umbra_cred *cred);
int umbra_readlink(struct umbra_fs *fs, uint64_t ino, char buf[UMBRA_SYMLINK_MAX + 1]);

/* ---- directories -------------------------------------------------------------------------------------- */

/*
 * cookie: the position after this entry, stable as long as the directory exists. A non-zero return
 * stops; this entry then does not count as consumed. The name is NUL-terminated and valid during
 * the call only.
 */
typedef int umbra_dirent_fn(
	void *arg, const char *name, uint64_t ino, unsigned char type, uint64_t cookie);
/* Entries from cookie on (0: the beginning, "." and ".." first), in cookie order, in bounded
 * batches. No lock is held while fn runs. */
int umbra_readdir(
	struct umbra_fs *fs, uint64_t dir, uint64_t cookie, umbra_dirent_fn *fn, void *arg);

/* ---- files --------------------------------------------------------------------------------------------- */

/*
 * Counts an open: the inode's content exists until the matching release. flags as in open(2);
 * O_TRUNC truncates. -EPERM for writes to immutable files, or without O_APPEND to append-only ones.
 */
int umbra_file_open(struct umbra_fs *fs, uint64_t ino, int flags, bool killpriv);
void umbra_file_release(struct umbra_fs *fs, uint64_t ino, int flags);

/*
 * Zero-copy read: fills up to `max` iovecs with pool memory (holes: a page of zeros, repeated) for
 * up to len bytes at off; *out_len is what they hold, less at the end of the file. Must be called,
 * and the memory used, between umbra_read_begin and umbra_read_end.
 */
void umbra_read_begin(struct umbra_fs *fs);
void umbra_read_end(struct umbra_fs *fs);
int umbra_read_iov(struct umbra_fs *fs, uint64_t ino, uint64_t off, size_t len, struct iovec *iov,
	unsigned max, unsigned *out_n, size_t *out_len);
/*
 * Plain files and block devices: the same content, read from the medium and not through the page
 * cache of the pool's file. 0: fn is called once, in this thread or another, possibly before this
 * returns. The memory is valid until fn returns; fn must not wait for other reads. One call brings
 * at least 1 MiB, unless the file ends. umbra_close must not be called before fn was. -EOPNOTSUPP,
 * -EAGAIN (too many reads in flight): use umbra_read_iov. Other errors as there.
 * mem: NULL, or 1 MiB aligned to a page that may be used until fn was called; the thread then has
 * nothing else to do, and waits for a small read itself. Either nothing of what fn is given lies in
 * mem, or all of it does, each piece at its place in the content or behind it.
 */
typedef void umbra_fetched_fn(void *arg, int err, const struct iovec *iov, unsigned n);
int umbra_fetch(struct umbra_fs *fs, uint64_t ino, uint64_t off, size_t len, void *mem,
	umbra_fetched_fn *fn, void *arg);
/* Copying read; bytes read or -errno. */
ssize_t umbra_read(struct umbra_fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off);
#define UMBRA_WRITE_APPEND 1u   /* at the end of the file; off is ignored, *out_off is where */
#define UMBRA_WRITE_KILLPRIV 2u /* drop set-id bits and security.capability */
#define UMBRA_WRITE_SYNC 4u     /* durable at return */
#define UMBRA_WRITE_LATE                                                                           \
	8u /* writeback of pages: there is no caller to report an error to, see umbra_open_error() */
#define UMBRA_WRITE_QUIET 16u /* the caller records an error itself */
/*
 * Data from a page cache, which must not extend the file. Bytes at or beyond the end, which was
 * elsewhere when they were stored, are dropped and count as written.
 */
#define UMBRA_WRITE_CACHED 32u
/* Writeback from a page cache that owns sizes and times: it may extend the file, and does not
 * change its times, which are passed to umbra_setattr() (UMBRA_SET_OWED). */
#define UMBRA_WRITE_BACK 64u
/* Through a descriptor that was opened with O_APPEND: -EPERM if the file is append-only and off is
 * before its end. An append-only file can be opened for writing in no other way. */
#define UMBRA_WRITE_OPENED_APPEND 128u
/*
 * Bytes written or -errno. Short only if space runs out; with UMBRA_WRITE_CACHED and
 * UMBRA_WRITE_BACK that is an error, even if part was written, because a page cache ignores the
 * number.
 */
ssize_t umbra_write(struct umbra_fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
	unsigned flags, uint64_t *out_off);
/*
 * The same without waiting for the medium. *out_sync: the data has to be made durable before the
 * write is acknowledged (UMBRA_WRITE_SYNC, or the file's attribute S), with umbra_fsync_start().
 */
ssize_t umbra_write_start(struct umbra_fs *fs, uint64_t ino, const void *buf, size_t len,
	uint64_t off, unsigned flags, bool *out_sync);
/* mode: FALLOC_FL_KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]; others -EOPNOTSUPP. */
int umbra_fallocate(struct umbra_fs *fs, uint64_t ino, int mode, uint64_t off, uint64_t len);
/* whence SEEK_DATA or SEEK_HOLE; -ENXIO as lseek(2). */
int umbra_lseek(struct umbra_fs *fs, uint64_t ino, uint64_t off, int whence, uint64_t *out);
/* Covers everything written so far. Errors of earlier writes are reported by umbra_open_error(). */
int umbra_fsync(struct umbra_fs *fs, uint64_t ino, bool datasync);
/* Has the inode the attribute S (or D, a directory), and is there anything to wait for? Writes look
 * at it themselves. */
bool umbra_wants_sync(struct umbra_fs *fs, uint64_t ino);
/*
 * Write errors are reported once to each descriptor of the file, like errseq_t in the kernel: the
 * negative error of a write that failed, or -EIO if changes have been stopped, or 0. number: that
 * of the descriptor, taken when it was opened.
 */
uint64_t umbra_open_number(struct umbra_fs *fs);
uint64_t umbra_open_latest(struct umbra_fs *fs); /* that of the next descriptor; takes none */
int umbra_open_error(struct umbra_fs *fs, uint64_t ino, uint64_t number);
/*
 * umbra_fsync without waiting: fn is called once, in this thread or another, when it is done.
 * umbra_close must not be called before. may_wait: this thread may wait for the medium after all,
 * which is faster if the medium has been quick.
 */
typedef void umbra_synced_fn(void *arg, int err);
void umbra_fsync_start(struct umbra_fs *fs, uint64_t ino, bool datasync, bool may_wait,
	umbra_synced_fn *fn, void *arg);

/*
 * As FICLONERANGE: makes dst share src's blocks in the range. Both offsets and, except at the end
 * of src, the length must be block-aligned; ranges of one file must not overlap (-EINVAL). len 0:
 * to the end.
 */
int umbra_clone_range(struct umbra_fs *fs, uint64_t src, uint64_t src_off, uint64_t len,
	uint64_t dst, uint64_t dst_off);
/*
 * The same, within bounds. stop(arg) is polled every few dozen extents; true ends it with -EINTR.
 * end: in: 0 if dst must not become longer, else where in dst the clone must end; otherwise nothing
 * is done, and the result is -EAGAIN. Out: where it ends, or would have ended. After any error part
 * of the range may have been cloned, but dst is not longer than before, unless the pool cannot be changed any more.
 */
struct umbra_clone_bounds {
	bool (*stop)(void *arg);
	void *arg;
	uint64_t end;
};
int umbra_clone_range_until(struct umbra_fs *fs, uint64_t src, uint64_t src_off, uint64_t len,
	uint64_t dst, uint64_t dst_off, struct umbra_clone_bounds *bounds);
/* The whole file, as FICLONE. Constant time. */
int umbra_clone(struct umbra_fs *fs, uint64_t src, uint64_t dst);
/*
 * Creates, in one transaction, an inode of src's type (anything but a directory) under a name, with
 * src's content, owner, mode, times and extended attributes. The change time is now; flags are
 * inherited from the directory. Adds no lookup reference. Permission checks are the caller's.
 * -EOPNOTSUPP: too many attributes for one transaction; -EMLINK: the owner count is at its limit.
 * In both cases the caller has to copy in steps.
 */
int umbra_clone_at(struct umbra_fs *fs, uint64_t src, uint64_t parent, const char *name);
/* Gives directory dst the metadata of directory src. -EEXIST: dst has extended attributes. */
int umbra_clone_dir_meta(struct umbra_fs *fs, uint64_t src, uint64_t dst);
/* Is the file open for writing? If not, no stores through a mapping can be outstanding. */
bool umbra_file_writers(struct umbra_fs *fs, uint64_t ino);
/* The inodes that are open for writing: returns their number; up to max are stored in out. */
size_t umbra_writers(struct umbra_fs *fs, uint64_t *out, size_t max);
/* copy_file_range(2): shares what aligns, copies the rest. Bytes or -errno. */
ssize_t umbra_copy_range(struct umbra_fs *fs, uint64_t src, uint64_t src_off, uint64_t dst,
	uint64_t dst_off, size_t len);
/* As FIDEDUPERANGE: shares the ranges if they are equal (*out_same); *out_done: bytes shared (whole
 * blocks, or up to both ends). */
int umbra_dedupe_range(struct umbra_fs *fs, uint64_t src, uint64_t src_off, uint64_t len,
	uint64_t dst, uint64_t dst_off, bool *out_same, uint64_t *out_done);

struct umbra_extent {
	uint64_t off, lba, len; /* bytes; block number in the pool; bytes */
	uint32_t refs;          /* owners of its blocks: a lower bound, through this path */
	bool shared, unwritten, inline_data;
};
typedef int umbra_extent_fn(void *arg, const struct umbra_extent *extent);
/* Extents that intersect [off, off+len), ascending, split where sharing changes. */
int umbra_map(struct umbra_fs *fs, uint64_t ino, uint64_t off, uint64_t len, umbra_extent_fn *fn,
	void *arg);

/*
 * The exact references to a file's blocks: those held by one leaf of the file's tree, and the nodes
 * on the path to that leaf. A block is held by as many leaves as it has references, a node by as
 * many nodes or files as it has parents; blocks of a file without nodes are held by the file
 * itself.
 */
#define UMBRA_OWNER_NODES 12
#define UMBRA_OWNER_RUNS 768
struct umbra_owner_node {
	uint64_t lba;
	uint64_t end; /* file block where what is below the node ends, UINT64_MAX: the file's end */
	uint32_t parents;
};
struct umbra_owner_run {
	uint64_t lba;
	uint32_t len; /* blocks */
	uint32_t refs;
};
struct umbra_owners {
	uint64_t blocks, inline_bytes; /* of the whole file */
	uint64_t next;                 /* file block to continue with; UINT64_MAX: complete */
	unsigned nnode, nrun;
	struct umbra_owner_node node[UMBRA_OWNER_NODES]; /* root first */
	struct umbra_owner_run run[UMBRA_OWNER_RUNS];
};
/* For the records that begin at or after file block `first`, in the leaf that covers it. */
int umbra_owners(struct umbra_fs *fs, uint64_t ino, uint64_t first, struct umbra_owners *out);

/*
 * An identifier of a file's whole content. Two files with the same identifier share every block and
 * have the same bytes, at this moment. It stays valid only if the caller keeps a clone that nobody
 * writes to, whose blocks and nodes then cannot change.
 */
enum umbra_content_kind {
	UMBRA_CONTENT_NONE = 0, /* no blocks: there is nothing to share */
	UMBRA_CONTENT_ROOT,
	UMBRA_CONTENT_EXTENTS,
};
struct umbra_content {
	enum umbra_content_kind kind;
	uint32_t mode, flags; /* st_mode, FS_*_FL */
	uint32_t owners; /* of the block with the fewest; 1: nobody else has the whole content */
	uint64_t lba;    /* that block, or 0 */
	uint64_t size;
	uint64_t root; /* ROOT */
	uint16_t len;  /* EXTENTS: bytes in body */
	uint8_t body[1024] __attribute__((aligned(8)));
};
int umbra_content(struct umbra_fs *fs, uint64_t ino, struct umbra_content *out);
bool umbra_content_same(const struct umbra_content *a, const struct umbra_content *b);
/* Does this content refer to the block, which is the `lba` of some content? */
bool umbra_content_has(const struct umbra_content *content, uint64_t lba);

/* ---- owners of shared blocks ----------------------------------------------------------------------------- */

/*
 * A shadow: a piece of a file, of blocks with several owners, that was handed out by a read and may
 * be in the kernel's cache. Their number is bounded by the option shadow_mem.
 */
struct umbra_shadow {
	uint64_t ino, off, lba, len; /* len, off: bytes */
	uint64_t sharers;            /* shadows, this one included, of its first block */
};
typedef int umbra_shadow_fn(void *arg, const struct umbra_shadow *shadow);
/* The shadows of a file, ascending. The whole range is searched, so pass ranges that are mapped. */
int umbra_shadows(struct umbra_fs *fs, uint64_t ino, uint64_t off, uint64_t len,
	umbra_shadow_fn *fn, void *arg);
/* The shadows of a block of the pool. */
int umbra_lba_shadows(struct umbra_fs *fs, uint64_t lba, umbra_shadow_fn *fn, void *arg);
/* The caller dropped its cached copy of a range (len 0: to the end). */
void umbra_cache_dropped(struct umbra_fs *fs, uint64_t ino, uint64_t off, uint64_t len);
/*
 * Coherence of a caller's cache of a file with writes that bypass it. umbra_cache_fills() is called
 * before each read or write whose data the cache keeps. umbra_cache_is_old() is called after a
 * write that bypasses the cache. If it returns true, the cache may hold stale data: the caller
 * drops the range or, if `whole` is set, the whole file, which is set once enough was written since
 * the cache last grew to make this cheaper, unless somebody has it open for writing through the
 * cache (without O_DIRECT), whose pages in flight must stay. After dropping the whole file,
 * umbra_cache_clean() with the returned `fills` marks the file clean: there is nothing to do until
 * the cache grows again.
 */
struct umbra_cache_old {
	uint32_t fills;
	bool whole;
};
void umbra_cache_fills(struct umbra_fs *fs, uint64_t ino);
bool umbra_cache_is_old(struct umbra_fs *fs, uint64_t ino, struct umbra_cache_old *out);
void umbra_cache_clean(struct umbra_fs *fs, uint64_t ino, uint32_t fills);

/*
 * Finds all owners of a block through the trees of all files, in bounded steps without a lock
 * between them, so files may change meanwhile. An owner that existed unchanged throughout is found.
 * If `changed` is not set, nothing was committed meanwhile and the list is exact.
 */
struct umbra_owner_scan {
	uint64_t lba;       /* in; everything else begins as 0 */
	uint64_t ino, key;  /* where the scan continues */
	uint64_t seq;       /* last commit at the beginning of the scan */
	uint64_t inodes;    /* number examined */
	uint64_t damaged;   /* files that could not be examined completely */
	uint32_t refs;      /* references that the block has now */
	bool done, changed; /* complete; something was committed meanwhile */
};
/* cached: there is a shadow of it. */
typedef int umbra_lba_owner_fn(void *arg, uint64_t ino, uint64_t off, bool cached);
/* Continues for about `inodes` inodes (a large file counts as several), or until fn returns
 * non-zero (that owner is repeated). -EINVAL: no such block. */
int umbra_lba_owners(struct umbra_fs *fs, struct umbra_owner_scan *scan, unsigned inodes,
	umbra_lba_owner_fn *fn, void *arg);

/* Where a search for names continues; starts as zeros. */
struct umbra_name_scan {
	uint64_t dir, cookie;
	bool done;
};
typedef int umbra_name_fn(void *arg, uint64_t ino, uint64_t dir, const char *name);
/* Finds all names of the n inodes (in ascending order), searching about `dirs` directories per
 * call. A non-zero return of fn stops (that name is repeated). */
int umbra_find_names(struct umbra_fs *fs, const uint64_t *inos, unsigned n,
	struct umbra_name_scan *scan, unsigned dirs, umbra_name_fn *fn, void *arg);
/* The path of a directory from the root, which is "/"; -ENAMETOOLONG. */
int umbra_dir_path(struct umbra_fs *fs, uint64_t dir, char *buf, size_t size);

/* ---- memory failure ---------------------------------------------------------------------------------------- */

/*
 * A separate thread handles blocks whose memory fails: metadata is rewritten elsewhere from its
 * other copy, file data from parity if the pool has it. Without parity, reads of exactly those
 * pages of exactly those files fail with -EIO until the pages are overwritten as a whole, truncated
 * or removed; clones have the same bad page. The block is never used again. Each such block causes
 * an event; the latest few hundred are kept in the pool.
 */
enum umbra_event_cause {
	UMBRA_CAUSE_MEMORY = 1,   /* a load or a store failed */
	UMBRA_CAUSE_CHECKSUM = 2, /* the bytes were wrong */
};
enum umbra_event_done {
	UMBRA_DONE_LOST = 1,      /* file data is lost: restore these pages */
	UMBRA_DONE_MOVED = 2,     /* good bytes are elsewhere now */
	UMBRA_DONE_REWRITTEN = 3, /* in place */
	UMBRA_DONE_RETIRED = 4,   /* it was free */
	UMBRA_DONE_ONE_COPY = 5,  /* at a fixed place: only the other copy is used */
	UMBRA_DONE_NO_COPY = 6,   /* metadata is lost: run fsck */
};
#define UMBRA_EVENT_OWNERS 8
#define UMBRA_EVENT_PATH 140
struct umbra_event {
	uint64_t number; /* ascending */
	int64_t sec;
	uint64_t lba, other; /* the bad block; where its bytes are now, or 0 */
	unsigned kind;       /* of metadata, see src/pool/format.h; 0: file data */
	enum umbra_event_cause cause;
	enum umbra_event_done done;
	uint64_t owners; /* total number */
	unsigned nowner; /* number listed */
	struct {
		uint64_t ino, off;               /* bytes */
		char path[UMBRA_EVENT_PATH + 1]; /* from the pool's root, or its end; "": unknown */
	} owner[UMBRA_EVENT_OWNERS];
};
struct umbra_health {
	uint64_t lost;            /* bad blocks that files refer to and that have no bytes */
	uint64_t moved;           /* bad blocks whose bytes are elsewhere */
	uint64_t retired;         /* bad blocks that nothing refers to any more */
	uint64_t checksum_errors; /* found since the mount */
	int stopped;              /* 0, or the error because of which changes were stopped */
	const char *stopped_by;   /* and its source; NULL: a request */
};
/* Events, oldest first; a non-zero return of fn stops and is returned. fn may be NULL. */
typedef int umbra_event_fn(void *arg, const struct umbra_event *event);
int umbra_health(struct umbra_fs *fs, struct umbra_health *out, umbra_event_fn *fn, void *arg);
/* The same for a pool that is not mounted. */
int umbra_health_pool(const char *path, struct umbra_health *out, umbra_event_fn *fn, void *arg);
const char *umbra_kind_name(unsigned kind); /* "superblock", "directory node", ... */
/*
 * The scrub: a thread of the lowest priority that reads everything in use: both copies of metadata,
 * and file data, with checksums and parity if the pool has them. What it finds is handled like any
 * bad block. It continues where the last one stopped, across mounts; after a cancel the next one
 * starts from the beginning.
 */
enum umbra_scrub_op {
	UMBRA_SCRUB_STATUS,
	UMBRA_SCRUB_START, /* -EALREADY: it is running */
	UMBRA_SCRUB_PAUSE,
	UMBRA_SCRUB_CANCEL,
};
enum umbra_scrub_state {
	UMBRA_SCRUB_NONE = 0, /* none since the mount */
	UMBRA_SCRUB_RUNNING,
	UMBRA_SCRUB_PAUSED,
	UMBRA_SCRUB_DONE,
};
struct umbra_scrub {
	enum umbra_scrub_state state;
	unsigned permille; /* of the whole, roughly */
	uint64_t bytes;    /* read since it was started */
	uint64_t bad;      /* blocks, or copies of them, found bad */
	uint64_t rate;     /* limit in bytes per second; 0: none */
	double seconds;    /* since it was started */
};
int umbra_scrub(
	struct umbra_fs *fs, enum umbra_scrub_op op, uint64_t rate, struct umbra_scrub *out);

/* For tests, and present only in builds for tests: as um_pool_poison. */
int umbra_poison(struct umbra_fs *fs, uint64_t lba, int bit);
/* Waits until all known bad blocks have been handled; for tests. */
void umbra_failures_settle(struct umbra_fs *fs);

/* ---- attributes -------------------------------------------------------------------------------------------- */

/* flags: XATTR_CREATE, XATTR_REPLACE. system.posix_acl_access updates the mode too. */
int umbra_setxattr(struct umbra_fs *fs, uint64_t ino, const char *name, const void *value,
	size_t len, int flags, bool kill_sgid);
/* size 0: only returns the length. Length or -errno (-ENODATA, -ERANGE). */
ssize_t umbra_getxattr(
	struct umbra_fs *fs, uint64_t ino, const char *name, void *value, size_t size);
ssize_t umbra_listxattr(struct umbra_fs *fs, uint64_t ino, char *list, size_t size);
/* -ENODATA if absent; removing an absent ACL returns 0, as in the kernel. */
int umbra_removexattr(struct umbra_fs *fs, uint64_t ino, const char *name);
/* FS_*_FL that can be set: IMMUTABLE, APPEND, NOATIME, NODUMP, SYNC, DIRSYNC; others
 * -EOPNOTSUPP. */
int umbra_set_flags(struct umbra_fs *fs, uint64_t ino, uint32_t flags);

#endif
