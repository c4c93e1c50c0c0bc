/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Internal to fs/: what its files share. Above is umbra/umbra.h, below are trees, space and
 * transactions.
 *
 * Inode records are not cached: an operation loads the record from the inode tree (as a reader, or
 * through its transaction), so there is only one copy to be right. What exists in memory only
 * (lookups, opens, the lock that orders writers of one file) is struct um_mem.
 *
 * Locks, outermost first:
 *   mem->lock     one inode's data: shared for overwrites of unshared, written blocks; exclusive for
 *                 what changes the mapping or the size (truncate, fallocate, clone, extending
 *                 writes). Reads of data take none (epochs). Two inodes: in ascending ino order.
 *                 Namespace operations take none: the transaction serialises them.
 *   log->writer   the transaction; every check on which an operation's success depends is made in it
 *   table bucket  struct um_mem lookup; a leaf
 */
#ifndef UM_FS_FS_H
#define UM_FS_FS_H

#include <fcntl.h>

#include "btree/btree.h"
#include "pool/log.h"
#include "space/space.h"
#include "umbra/umbra.h"

struct um_mem_table;
struct um_reaper;
struct um_page;
struct um_failures;
struct um_scrub;
struct um_again;
struct um_errors;
struct um_told;

struct umbra_fs {
	struct um_pool *pool;
	struct um_log *log;
	struct um_space *space;
	struct umbra_options opt;
	atomic_bool readonly; /* changes are refused */
	bool taken;           /* the pool is open for writing */
	bool stores;          /* marked as in use; the threads below run */
	struct um_mem_table *mems;
	struct um_page *page;         /* masters and shadows */
	struct um_reaper *reaper;     /* background thread: orphans, quarantine, commit timer */
	struct um_failures *failures; /* another: handles bad blocks */
	struct um_scrub *scrub;       /* another, on request */
	struct um_errors *errors;     /* write errors not yet reported to all: errors.c */
	struct um_again *again;       /* another, when direct reads have failed: fetch.c */
	pthread_mutex_t scrub_lock;   /* serialises starting and ending it */
	pthread_mutex_t grow_lock;    /* one grow at a time; outermost */
	bool discarding;              /* freed space is returned to the host; used by the reaper */
	bool loose_tails;             /* bytes beyond the end of a file may be non-zero */
	atomic_int stopped;           /* 0, or the errno that changes fail with */
	_Atomic(uint64_t) fetching;   /* bytes, see fetch.c */
	atomic_uint_fast64_t stat_clones, stat_cow_blocks, stat_reads, stat_writes, stat_read_bytes,
		stat_write_bytes, stat_orphans_freed;
};

/* ---- pool root (root.c) ------------------------------------------------------------------------- */

enum um_root_which { UM_ROOT_INODES, UM_ROOT_ORPHANS, UM_ROOT_BADS, UM_ROOT_EVENTS };
extern const struct um_tree_type um_inodes_type, um_orphans_type, um_bads_type, um_events_type,
	um_extents_type, um_dir_type, um_xattr_type;
int um_root_tree(struct um_src src, enum um_root_which which, struct um_tree *out);
int um_root_store(struct um_txn *txn, enum um_root_which which, const struct um_tree *tree);
/* The pool root block, for reading and for changing. */
int um_root_get(struct um_src src, const struct um_pool_root **out);
int um_root_edit(struct um_txn *txn, struct um_pool_root **out);

/* ---- inode records (inode.c) ---------------------------------------------------------------------- */

struct um_inode {
	um_ino_t ino;
	struct um_inode_core core;
	uint8_t data[UM_INLINE_MAX];
	uint8_t xattr[UM_XATTR_EMBED_MAX];
};
enum um_fork { UM_FORK_DATA, UM_FORK_XATTR };

/* -ESTALE: there is no such inode; -EUCLEAN: its record is invalid. */
int um_inode_load(struct um_src src, um_ino_t ino, struct um_inode *out);
/* As a reader: takes and releases the read lock around the load. */
int um_inode_read(struct umbra_fs *fs, um_ino_t ino, struct um_inode *out);
int um_inode_store(struct um_txn *txn, const struct um_inode *inode);
/* A new inode: number and generation assigned, times now, nlink 0, no forks; stored by the caller's
 * um_inode_store. */
int um_inode_new(struct um_txn *txn, mode_t mode, struct um_inode *out);
int um_inode_remove(struct um_txn *txn, um_ino_t ino);
/* Loads a fork as a tree, and puts it back into the record after changes (marks nothing else). */
void um_inode_tree(const struct um_inode *inode, enum um_fork fork, struct um_tree *out);
void um_inode_set_tree(struct um_inode *inode, enum um_fork fork, const struct um_tree *tree);
void um_inode_attr(const struct um_inode *inode, struct umbra_attr *out);

#define UM_TOUCH_A 1u
#define UM_TOUCH_M 2u
#define UM_TOUCH_C 4u
void um_inode_touch(struct um_inode *inode, unsigned what); /* now, from CLOCK_REALTIME */
/* Clears set-id bits like a write by an unprivileged user; true if the mode changed. Also removes
 * security.capability. */
int um_inode_killpriv(struct um_txn *txn, struct um_inode *inode);

/* ---- in memory (mem.c) -------------------------------------------------------------------------------- */

struct um_mem {
	um_ino_t ino;
	pthread_rwlock_t lock;
	uint64_t nlookup; /* under the bucket lock, like the next four */
	uint32_t nopen, nopen_write;
	uint32_t nopen_cached;  /* those that write through the caller's cache */
	uint32_t pins;          /* users of this struct */
	atomic_bool unlinked;   /* nlink reached 0: free with the last lookup and open */
	uint64_t unlinked_nsec; /* CLOCK_MONOTONIC time of that, for the bounded wait in statfs */
	struct um_told *told;   /* write error: errors.c */
	um_lba_t next_goal;     /* where the file's last allocation ended; under lock */
	/* Coherence of the caller's cache; under the bucket lock, modulo 2^32: mem.c. */
	uint32_t fills; /* reads and writes that may have left something in it */
	uint32_t clean; /* value of fills when it last had nothing stale */
	uint32_t drops; /* writes past it since the last fill */
	struct um_mem *next;
};
int um_mem_table_open(struct um_mem_table **out);
void um_mem_table_close(struct um_mem_table *table);
/* Pins the struct, creating it if absent; -ENOMEM. put drops it when nothing holds it. */
int um_mem_get(struct umbra_fs *fs, um_ino_t ino, struct um_mem **out);
void um_mem_put(struct umbra_fs *fs, struct um_mem *mem);
/* Called in the transaction's commit hook when nlink becomes 0, and when it rises again (link of a
 * tmpfile). */
void um_mem_set_unlinked(struct umbra_fs *fs, um_ino_t ino, bool unlinked);
/* Does nobody hold the inode? (checked by orphan processing before it frees) */
bool um_mem_idle(struct umbra_fs *fs, um_ino_t ino);
/*
 * Lookups and opens. For an inode without links that nobody holds yet: -ESTALE, as the reaper may
 * be freeing it. To be called where the inode's record was loaded, before the read lock or the txn
 * is released.
 */
int um_mem_ref(struct umbra_fs *fs, const struct um_inode *inode);
int um_mem_ref_new(struct umbra_fs *fs, um_ino_t ino); /* an inode that this txn makes */
void um_mem_unref(struct umbra_fs *fs, um_ino_t ino, uint64_t n);
/* Is it an open for writing? */
static inline bool um_open_writes(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}
int um_mem_opened(struct umbra_fs *fs, const struct um_inode *inode, int flags);
void um_mem_closed(struct umbra_fs *fs, um_ino_t ino, int flags); /* the same */
/* Unlinked recently, not open, and held only by lookups that have not been forgotten yet? */
bool um_mem_leaving(struct umbra_fs *fs, um_ino_t ino, uint64_t max_age_nsec);
uint64_t um_mem_count(struct umbra_fs *fs);

/* ---- orphans (orphan.c) ------------------------------------------------------------------------------ */

/* An inode has one record. UNLINKED replaces any other, since freeing the inode includes it;
 * TRUNCATE leaves an UNLINKED one as it is, and is noted inside a TMPFILE one. */
int um_orphan_add(struct um_txn *txn, um_ino_t ino, uint32_t what, uint64_t arg);
/* A truncation is complete; records of unlinked inodes stay. No record is no error. */
int um_orphan_del(struct um_txn *txn, um_ino_t ino);
/* A tmpfile gets its first name; -ENOENT if the inode is none (any more). */
int um_orphan_relink(struct um_txn *txn, um_ino_t ino);
int um_reaper_start(struct umbra_fs *fs);
void um_reaper_stop(struct umbra_fs *fs);
/* There may be work for this inode (last close of an unlinked file). The reaper frees small files
 * at once; it never holds the writer lock for more than one bounded step. */
void um_reaper_kick(struct umbra_fs *fs, um_ino_t ino);
/* For tests: set before a mount, no thread is started, and work waits for um_reaper_run. */
extern bool um_reaper_manual;
void um_reaper_run(struct umbra_fs *fs);
/* An inode was unlinked that somebody still holds: um_reaper_wait watches for it. */
void um_reaper_note(struct umbra_fs *fs, um_ino_t ino);
/* Frees some inodes in the calling thread if the backlog is long; for threads that add to it. */
void um_reaper_help(struct umbra_fs *fs);
/* Number of idle unlinked inodes waiting to be freed. */
uint64_t um_reaper_backlog(struct umbra_fs *fs);
/* Waits, at most `msec`, until no idle unlinked inode is left to free. */
void um_reaper_wait(struct umbra_fs *fs, unsigned msec);

/* ---- back to the host (trim.c) ------------------------------------------------------------------------- */

void um_discard_start(struct umbra_fs *fs);
/* Called by the reaper, once a second. */
void um_discard_tick(struct umbra_fs *fs);

/* ---- growth (grow.c) ---------------------------------------------------------------------------------- */

/* Backups of the superblock that a growth has not come to are written now, if none is under way. */
void um_backups_refresh(struct umbra_fs *fs);

/* ---- scrub (scrub.c) ---------------------------------------------------------------------------------- */

int um_scrub_open(struct umbra_fs *fs);
void um_scrub_close(struct umbra_fs *fs);

/* ---- file data (data.c, write.c, clone.c ...) ---------------------------------------------------------- */

/* Sets the size of a regular file: frees or zeroes what is cut off, in bounded steps; resumable
 * after a crash through the orphan tree. Takes mem->lock. */
int um_data_resize(struct umbra_fs *fs, um_ino_t ino, uint64_t size, bool killpriv);
/* One bounded step of dropping all of a regular file's blocks; stores the inode. *done at the
 * end. */
int um_data_drop_step(struct um_txn *txn, struct um_inode *inode, uint64_t first_block, bool *done);
/* The same for a directory's or xattr fork's tree. */
int um_fork_drop_step(struct um_txn *txn, struct um_inode *inode, enum um_fork fork, bool *done);
/* Resumes a truncation found in the orphan tree after a crash. */
int um_data_resume_truncate(struct umbra_fs *fs, um_ino_t ino, uint64_t first_block);

/* Reads past the mapping (fetch.c): open before the first, close when all are done. */
int um_fetch_open(struct umbra_fs *fs);
void um_fetch_close(struct umbra_fs *fs);

/* ---- names, xattrs, ACLs -------------------------------------------------------------------------------- */

uint64_t um_name_hash(
	const struct um_pool *pool, const char *name, size_t len); /* XXH3 with the pool's seed */
/* The first possible key of a name in a directory (n = 0), and as an xattr (n = 0, piece 0). */
uint64_t um_dir_key(const struct um_pool *pool, const char *name, size_t len);
uint64_t um_xattr_key(const struct um_pool *pool, const char *name, size_t len);
int um_xattr_get(struct um_src src, const struct um_inode *inode, const char *name, void *buf,
	size_t size, size_t *out_len);
int um_xattr_set(struct um_txn *txn, struct um_inode *inode, const char *name, const void *value,
	size_t len, int flags);
int um_xattr_remove(struct um_txn *txn, struct um_inode *inode, const char *name);
/* Applies the parent's default ACL to a new inode: mode and ACL xattrs; without one, the umask. */
int um_acl_inherit(
	struct um_txn *txn, const struct um_inode *parent, struct um_inode *inode, mode_t umask);
int um_acl_chmod(struct um_txn *txn, struct um_inode *inode); /* access ACL from core.mode */
int um_acl_set_mode(struct um_inode *inode, const void *acl, size_t len, bool kill_sgid,
	bool *out_equiv); /* core.mode from the access ACL; equiv: the mode says it all */

/* ---- every operation (fs.c) ---------------------------------------------------------------------------- */

/* um_txn_begin for changes requested by a caller: -EIO after a shutdown, -EROFS if read-only. */
int um_fs_begin(struct umbra_fs *fs, unsigned flags, struct um_txn **out);
/* 0, or -EIO after a shutdown; checked by reads. */
static inline int um_fs_alive(struct umbra_fs *fs)
{
	return -atomic_load_explicit(&fs->stopped, memory_order_relaxed);
}
/* Fills in what the superblock says. (info.c) */
void um_info_super(const struct um_pool *pool, struct umbra_info *out);
/* An inode was read: updates atime according to the mount's policy. Best effort. (file.c) */
void um_atime_update(struct umbra_fs *fs, um_ino_t ino);

static inline struct um_src um_fs_src(struct umbra_fs *fs)
{
	return (struct um_src){fs->pool, NULL};
}

/* umbra_read_iov(); load: what is handed out is loaded first. Not for reads past the mapping. */
int um_read_iov(struct umbra_fs *fs, um_ino_t ino, uint64_t off, size_t len, bool load,
	struct iovec *iov, unsigned max, unsigned *out_n, size_t *out_len);

#endif
