/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The pool: a file or device mapped into memory, seen as blocks. Back ends (file, fsdax, devdax,
 * memory) differ in how it is mapped, how a store becomes durable and how bad blocks are found; the
 * layers above see only this interface. Every store to the pool goes through the functions below.
 *
 * There are two paths to durability, distinguished by pool->direct:
 * - direct (fsdax, devdax, memory): the mapping is the medium. A store is durable after
 *   um_pool_drain().
 * - indirect (file, block): the mapping is private. Metadata stores stay in private pages until a
 *   checkpoint writes them to the file (um_pool_writeback); data stores are pwrite(2), so the
 *   kernel keeps them if the daemon dies; both reach the medium with um_pool_barrier().
 */
#ifndef UM_POOL_POOL_H
#define UM_POOL_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "pool/format.h"
#include "pool/guard.h"
#include "umbra/types.h"

struct um_pool;
struct um_aio;
struct um_aio_engine;
struct um_rests;
struct um_behind;
struct um_host;

struct um_badlist;
#define UM_LISTED_LOG 16u /* number of blocks on the kernel's list that are logged individually */
/* A range of bytes, whole blocks. A non-zero return ends the walk and is returned. */
typedef int um_bad_fn(void *arg, uint64_t off, uint64_t len);

struct um_pool_ops {
	const char *name;
	/* Maps [0, size) of fd at pool->base. */
	int (*map)(struct um_pool *pool);
	void (*unmap)(struct um_pool *pool);
	/* Calls fn for each range of bytes of the pool that the kernel lists as bad, if its list
	 * has changed since the last call. -ENOENT: there is no list. NULL: there never is one. */
	int (*badblocks)(struct um_pool *pool, um_bad_fn *fn, void *arg);
	/* Stores that nothing committed refers to yet, or data in place. src NULL: zeros. An
	 * aligned store of 8 bytes never tears. */
	int (*write)(struct um_pool *pool, uint64_t off, const void *src, size_t len);
	/* Stores committed metadata to its home in the mapping. */
	int (*apply)(struct um_pool *pool, uint64_t off, const void *src, size_t len);
	void (*drain)(struct um_pool *pool);
	int (*barrier)(struct um_pool *pool);
	/* Indirect only: writes images of n blocks home from lba on; drops the mapping's private
	 * pages, so that loads see the file again. */
	int (*writeback)(struct um_pool *pool, um_lba_t lba, const void *images, uint32_t n);
	void (*giveback)(struct um_pool *pool, um_lba_t lba, uint32_t n);
	/* Returns unneeded bytes to the host; their contents are undefined afterwards. NULL: not
	 * possible. */
	int (*punch)(struct um_pool *pool, uint64_t off, uint64_t len);
	/* Maps bytes [from, to) of the medium at their place in the room: at open (um_room_map) and
	 * when the pool grows. NULL: it cannot grow while mapped. */
	int (*map_part)(struct um_pool *pool, uint64_t from, uint64_t to);
	/* Rewrites a whole block whose memory failed, in a way that heals the memory if that is
	 * possible, and maps it anew. NULL: not possible. */
	int (*heal)(struct um_pool *pool, um_lba_t lba, const void *content);
};

#define UM_REPAIRS_MAX 32u /* bad copies queued for repair; further ones are found again later */
struct um_repair {
	struct um_ptr ptr;
	enum um_kind kind;
};

/* What was found out about bad blocks, for fs/failure.c, which records it. */
enum um_trouble_what {
	UM_TROUBLE_FAILED =
		1,         /* a load or a store failed: the kind of the block has to be found out */
	UM_TROUBLE_COPY,   /* metadata: one copy cannot be loaded and has to be moved */
	UM_TROUBLE_BOTH,   /* metadata: no copy is good */
	UM_TROUBLE_MANY,   /* more blocks than can be queued: search the bitmap */
	UM_TROUBLE_WRONG,  /* file data, parity, superblock: does not match its checksum */
	UM_TROUBLE_DATA,   /* file data: did not match, and has been rewritten from parity */
	UM_TROUBLE_MENDED, /* metadata: a copy was wrong and has been rewritten from the other */
};
struct um_trouble {
	um_lba_t lba; /* the bad block */
	struct um_ptr ptr;
	enum um_kind kind; /* 0: unknown */
	enum um_trouble_what what;
};
#define UM_TROUBLES_MAX 64u

/* Blocks that were moved: the number that all pointers have -> where it is now, and back. Never
 * changed, only replaced. */
struct um_moved {
	struct um_moved *older; /* earlier tables, which somebody may still be reading */
	uint64_t n, mask;
	struct um_moved_slot {
		uint64_t key; /* 0: none */
		um_lba_t val;
	} slot[];
};

struct um_pool {
	const struct um_pool_ops *ops;
	enum umbra_pool_kind kind;
	bool direct;   /* see above */
	bool readonly; /* opened read-only: no function below that stores may be called */
	bool peek;     /* opened to look at, by UM_POOL_NOLOCK: a replay is not reported */
	int fd;
	char *path;
	uint8_t *base; /* of the mapping */
	/* These are raised when the pool grows, in this order, and never decrease. */
	_Atomic(uint64_t) map_len; /* bytes mapped */
	_Atomic(uint64_t) size;    /* bytes in use of them: nchunks * UM_CHUNK_SIZE */
	_Atomic(uint64_t) nblocks; /* size in blocks */
	_Atomic(uint64_t) nchunks;
	_Atomic(uint32_t) nags;
	uint64_t room; /* bytes of address space from base on that the mapping can grow into */
	struct um_super super; /* copy of the valid superblock */
	struct um_super *next; /* committed but not yet in effect: under the log's writer lock */
	uint32_t
		super_repaired; /* bit 0/1: that copy was bad at open; rewritten when not readonly */
	/* One bit per block: its checksum was verified, or we wrote it, since open. */
	_Atomic(uint64_t) *verified;
	/* One bit per block: it is bad, see um_pool_lost(). Indexed by place, not by block
	 * number. */
	_Atomic(uint64_t) *lost;
	atomic_uint_fast64_t nlost;
	atomic_bool
		cover_void; /* a block of cover is bad for good in all copies: its stripes have no parity */
	_Atomic(struct um_moved *) moved; /* NULL: no block was ever moved */
	atomic_uint_fast64_t csum_errors, mirror_repairs;
	atomic_uint_fast64_t
		data_errors; /* blocks of file data that did not match their checksums */
	/* Metadata blocks with one bad copy, waiting for the log's next commit. */
	pthread_mutex_t repair_lock;
	struct um_repair repair[UM_REPAIRS_MAX];
	_Atomic(uint32_t) nrepair;
	struct um_trouble
		trouble[UM_TROUBLES_MAX]; /* under repair_lock; when full the latest are dropped */
	_Atomic(uint32_t) ntrouble;
	/* Blocks found bad in a signal handler: a ring that only grows; beyond its end only the
	 * bitmap has them. */
	_Atomic(um_lba_t) failed[UM_TROUBLES_MAX];
	atomic_uint_fast64_t nfailed, ntaken;
	/* Reads the pool's records of bad blocks; set before a log is opened. *changed: something
	 * new was found. */
	int (*load_bad)(struct um_pool *pool, bool *changed);
	_Atomic(um_lba_t) reported[64]; /* bad blocks recently logged, to log each once */
	uint64_t guard_unit;            /* bytes that the guard replaces: a mapping splits there */
	struct um_badlist *badlist; /* the kernel's, see um_pool_scan_bad(); also what follows */
	uint64_t nlisted;           /* number of blocks listed as bad, and the first of them */
	um_lba_t listed[UM_LISTED_LOG];
	bool scan_failed, unlisted; /* unlisted: there is no list */
	pthread_mutex_t barrier_lock;
	int barrier_failed;           /* under it: the error of the first barrier that failed */
	struct um_unshared *unshared; /* of the log, see txn/unshared.c */
	struct um_rests *rests;       /* of the log: rests.h; NULL: nothing is listed */
	/* Served indirect pools: see um_pool_async(). */
	struct um_aio_engine *aio;
	struct um_behind *behind;
	int read_fd; /* for data, past the page cache if read_direct; -1: none */
	bool read_direct;
	struct um_host *host; /* files: which parts may be holes, see host.c; NULL: none */
	void *priv;           /* private to the back end */
};

#define UM_POOL_RDONLY 1u   /* shared lock, never a store */
#define UM_POOL_EXCL 2u     /* exclusive lock: any use that may store */
#define UM_POOL_NOLOCK 4u   /* with RDONLY: open a pool that may be in use (umbractl info) */
#define UM_POOL_TRY 8u      /* one attempt: -EBUSY at once, without a message */
#define UM_POOL_NOSUPER 16u /* do not read a superblock (mkfs): `size` is the length to map */
#define UM_POOL_PRIVATE 32u /* with RDONLY: stores allowed, to private pages only (fsck -n) */
#define UM_POOL_SHARED 64u  /* with EXCL: the block device is claimed on our behalf by the mount */
/*
 * Opens and maps the pool at path and verifies its superblock, taking the second copy when the
 * first is bad. size: bytes to map with NOSUPER, else 0. Errors: -EBUSY in use elsewhere;
 * -EMEDIUMTYPE no umbrafs pool; -EUCLEAN both superblocks bad; -EPROTONOSUPPORT version or incompat
 * bit unknown; -ENODATA shorter than its superblock says; -EROFS ro_compat bit unknown and not
 * RDONLY; others of open(2). Each with one log line.
 */
int um_pool_open(const char *path, unsigned flags, uint64_t size, struct um_pool **out);
/*
 * Opens the same file again with other flags, whatever its path names by now. The lock passes to
 * the new pool; after an error um_pool_relock() takes it again for the old one, -EBUSY if another
 * process has it.
 */
int um_pool_reopen(struct um_pool *seen, unsigned flags, struct um_pool **out);
int um_pool_relock(const struct um_pool *seen);
/* A zeroed pool in memory, for unit tests. The caller fills in the superblock fields. */
int um_pool_open_memory(uint64_t size, struct um_pool **out);
/* The same over memory the caller owns (a crash image). Verifies the superblock unless NOSUPER. */
int um_pool_open_image(void *base, uint64_t size, unsigned flags, struct um_pool **out);
void um_pool_close(struct um_pool *pool);
/* Re-reads pool->super from the pool after mkfs wrote it and sets the geometry fields. */
int um_pool_load_super(struct um_pool *pool);
/* Size in bytes and kind of what path names (regular file, block device, devdax). */
int um_pool_probe(const char *path, uint64_t *out_size, enum umbra_pool_kind *out_kind);

/*
 * Growing (grow.c), in two steps. Extend: the medium gets `size` bytes, whole chunks, and they are
 * mapped; a file is extended and, unless `sparse`, allocated. -ENOSPC: the device or the host of
 * the file has not that much; -EOPNOTSUPP, -ENOMEM: no address space is left behind the mapping.
 * What is stored there belongs to nobody until the superblock says so. Publish: makes pool->next
 * take effect; the caller excludes readers of metadata and the writer.
 */
int um_pool_extend(struct um_pool *pool, uint64_t size, bool sparse);
void um_pool_publish(struct um_pool *pool);
/* The present size in bytes of the file or device. */
int um_pool_medium(const struct um_pool *pool, uint64_t *out_size);

/* Free space and the host (host.c). Called before blocks of a chunk are handed out: the chunk and
 * its tables get the space that they may lack. -ENOSPC, -EDQUOT: the host has none; -EIO. Cheap. */
int um_pool_ready(struct um_pool *pool, uint64_t chunk);
bool um_pool_lacks(
	const struct um_pool *pool, uint64_t chunk); /* would um_pool_ready() have to allocate? */
/*
 * Returns n free blocks, which nobody can take meanwhile and no record needs, to the host. Aligned
 * to, and in multiples of, the punch unit, in blocks (0: not possible). Errors are those of the
 * host; part may be gone then.
 */
uint32_t um_pool_punch_unit(const struct um_pool *pool);
int um_pool_punch(struct um_pool *pool, um_lba_t lba, uint64_t n);

/* The place of a block. All other code uses the original number of a block. (moved.c) */
um_lba_t um_moved_find(const struct um_moved *moved, um_lba_t lba);
static inline um_lba_t um_pool_home(const struct um_pool *pool, um_lba_t lba)
{
	const struct um_moved *moved = atomic_load_explicit(&pool->moved, memory_order_acquire);

	return __builtin_expect(!moved, 1) ? lba : um_moved_find(moved, lba);
}
/* The inverse: the block that is at a place. */
um_lba_t um_moved_name(const struct um_moved *moved, um_lba_t place);
static inline um_lba_t um_pool_name(const struct um_pool *pool, um_lba_t place)
{
	const struct um_moved *moved = atomic_load_explicit(&pool->moved, memory_order_acquire);

	return __builtin_expect(!moved, 1) ? place : um_moved_name(moved, place);
}
/* How many of n blocks from lba on are contiguous; at least 1. */
uint64_t um_pool_span(const struct um_pool *pool, um_lba_t lba, uint64_t n);
/* Makes a table in which `lba` is also at `to`, or for 0 at its original place. -ENOMEM. Then it is
 * installed, or freed. One caller at a time. */
int um_moved_make(struct um_pool *pool, um_lba_t lba, um_lba_t to, struct um_moved **out);
void um_moved_install(struct um_pool *pool, struct um_moved *moved);
void um_moved_free(struct um_pool *pool);
static inline const void *um_pool_ptr(const struct um_pool *pool, um_lba_t lba)
{
	return pool->base + (um_pool_home(pool, lba) << UM_BLOCK_SHIFT);
}
static inline bool um_lba_ok(const struct um_pool *pool, um_lba_t lba, uint64_t n)
{
	return lba && lba < pool->nblocks && n <= pool->nblocks - lba;
}

/*
 * Stores of file data and fresh blocks that a transaction will refer to; durable after the next
 * drain and barrier. Indirect pools: they are noted as data that the next group commit depends on
 * (rests.h).
 */
int um_pool_write(struct um_pool *pool, um_lba_t lba, uint32_t off, const void *src, size_t len);
/* The same, but the transaction depends on the first `rests` bytes only; what follows may be
 * anything after a power cut. */
int um_pool_write_front(struct um_pool *pool, um_lba_t lba, uint32_t off, const void *src,
	size_t len, size_t rests);
/* From now on transactions depend on these bytes as they are, which they did not before. */
void um_pool_vouch(struct um_pool *pool, um_lba_t lba, uint32_t off, size_t len);
/* The same for data in place, of which a power cut may leave any part: no transaction depends on
 * it. */
int um_pool_overwrite(
	struct um_pool *pool, um_lba_t lba, uint32_t off, const void *src, size_t len);
/* For the journal itself. */
int um_pool_write_journal(
	struct um_pool *pool, um_lba_t lba, uint32_t off, const void *src, size_t len);
int um_pool_zero(struct um_pool *pool, um_lba_t lba, uint32_t off, size_t len);
/* Stores committed metadata to its home, and marks the block verified. */
int um_pool_apply(struct um_pool *pool, um_lba_t lba, uint32_t off, const void *src, size_t len);
/* All earlier stores are durable (direct) or passed to the kernel (indirect). */
void um_pool_drain(struct um_pool *pool);
/* Has this thread stored anything since its last drain? */
extern _Thread_local bool um_pool_undrained;
/* All earlier stores, except applied metadata of an indirect pool, are on the medium. -EIO. */
int um_pool_barrier(struct um_pool *pool);
bool um_pool_barrier_failed(struct um_pool *pool); /* at any time since open */

/* Plain files: allocates the blocks, where the filesystem below supports it. -ENOSPC, -EDQUOT, -EIO. */
int um_pool_reserve(struct um_pool *pool, um_lba_t lba, uint64_t n);
/* Drops clean pages of the host's page cache, so that the next loads see the medium. Best
 * effort. */
void um_pool_forget_cached(const struct um_pool *pool);

/* Indirect only; as the operations of the same names. */
int um_pool_writeback(struct um_pool *pool, um_lba_t lba, const void *images, uint32_t n);
void um_pool_giveback(struct um_pool *pool, um_lba_t lba, uint32_t n);

/* Indirect pools: from now on data can be read, and more, asynchronously (aio.h). -EOPNOTSUPP: for
 * this pool the mapping is the best path to its data. poll_ns: how long a thread may poll for a
 * small read. */
int um_pool_async(struct um_pool *pool, uint64_t poll_ns);
void um_pool_async_end(struct um_pool *pool); /* waits for everything in flight */
/*
 * Submits reads of data: a list of requests with op and fd left open. Offsets, lengths and
 * addresses are multiples of UM_BLOCK_SIZE. here: a single request is carried out by this thread.
 * alone: nothing else is in flight, so it may poll. Not for metadata: private pages may differ from
 * the file.
 */
void um_pool_read_async(struct um_pool *pool, struct um_aio *list, bool here, bool alone);

/*
 * Is one of n blocks from lba on bad: a load or a store failed, or the pool has a record of it? Its
 * place in the mapping may hold zeros that are not the pool's; stores to it fail with -EIO. A moved
 * block is no longer bad.
 */
bool um_pool_lost(const struct um_pool *pool, um_lba_t lba, uint64_t n);
/* From now on the blocks count as lost. */
void um_pool_set_lost(struct um_pool *pool, um_lba_t lba, uint64_t n);
/* The same for a place: what becomes free there must not be used again. */
bool um_pool_place_bad(const struct um_pool *pool, um_lba_t lba);
/* The first bad place at or after *lba; false: there is none. */
bool um_pool_next_bad(const struct um_pool *pool, um_lba_t *lba);
/* Is any place bad? A single load, to avoid checking each block. */
static inline bool um_pool_any_bad(const struct um_pool *pool)
{
	return __builtin_expect(atomic_load_explicit(&pool->nlost, memory_order_acquire) != 0, 0);
}
/* The pool has a record of the place as bad. */
void um_pool_set_bad(struct um_pool *pool, um_lba_t lba);
/* Makes a bad block good again by rewriting it whole with `content`, bypassing the bad place of the
 * mapping. -EOPNOTSUPP, -EIO: not possible. */
int um_pool_heal(struct um_pool *pool, um_lba_t lba, const void *content);
/* The same for a block recorded as bad that was not touched since the pool was opened, where
 * um_pool_heal is not possible. */
int um_pool_retry(struct um_pool *pool, um_lba_t lba, const void *content);
/* The memory is good, the bytes are not: replaces them at once. What is committed must be
 * durable. */
int um_pool_mend(struct um_pool *pool, um_lba_t lba, const void *content);
/* Reads from the file a block of file data whose page in the mapping failed. -EOPNOTSUPP: the
 * mapping is the medium; -EIO. */
int um_pool_reread(struct um_pool *pool, um_lba_t lba, void *out);
/* Takes the next trouble from the queue, -ENOENT. (trouble.c) */
int um_trouble_take(struct um_pool *pool, struct um_trouble *out);
void um_trouble_add(struct um_pool *pool, const struct um_trouble *trouble);
bool um_trouble_any(const struct um_pool *pool);
/* Sets or clears the bit "verified" of n blocks; for txn/ and for the functions above. */
void um_pool_mark(struct um_pool *pool, um_lba_t lba, uint64_t n, bool verified);
/*
 * Reads the kernel's bad block list of the medium and marks new entries as lost; logs a warning for
 * each of the first few. Called at open, then every second while the pool stays open; one thread at
 * a time. 1: there were new ones; 0; or an error, logged once.
 */
int um_pool_scan_bad(struct um_pool *pool);

#ifdef UM_POISON
/* For tests: makes a block fail from now on or, if bit >= 0, flips one of its bits. (poison.c) */
int um_pool_poison(struct um_pool *pool, um_lba_t lba, int bit);
#endif

/* ---- geometry ------------------------------------------------------------------------------- */

static inline uint64_t um_chunk_of(um_lba_t lba)
{
	return lba / UM_CHUNK_BLOCKS;
}
/* Number of chunks of group ag: 504, or fewer in the last one and in the last before a seam; 0: no
 * such group. */
uint32_t um_ag_chunks(const struct um_pool *pool, uint32_t ag);
/* The group's first chunk; the group of a chunk, and its number in the group. */
uint64_t um_ag_first(const struct um_super *super, uint32_t ag);
struct um_place {
	uint32_t ag, i;
};
struct um_place um_chunk_place(const struct um_super *super, uint64_t chunk);
/* Are size and seams of a superblock possible? If not, the other functions here must not be called
 * for it. */
bool um_super_shape_ok(const struct um_super *super);
/* Number of groups of a pool. */
uint32_t um_super_groups(const struct um_super *super);
/* Checks the fields of a superblock whose checksum is right, but which may be forged: the error, or
 * NULL. */
const char *um_super_fault(const struct um_super *super);
/* Does a superblock without such an error, found anywhere, belong to this pool? The chunk words of
 * the groups that it describes decide: none that can be read has another UUID, address or length,
 * and at least half of them can be read. (super.c) */
bool um_super_agrees(struct um_pool *pool, const struct um_super *super);
/* Is `old` what `now` was before the pool grew? Both are valid. */
bool um_super_older(const struct um_super *old, const struct um_super *now);
/* Pointer (with mirror when copies == 2) of the group's word table, of a chunk's counts. */
struct um_ptr um_ag_ptr(const struct um_pool *pool, uint32_t ag);
struct um_ptr um_refs_ptr(const struct um_pool *pool, uint64_t chunk);
/* The roles of the chunks of a group, numbered within the group: chunk 0 is its table, the last one
 * the mirror of the table. The `data` chunks from `first` on can be allocated; no others can. */
struct um_group {
	uint32_t chunks; /* 0: no such group */
	uint32_t first, data;
	uint32_t csum, csum_mirror; /* 0: none */
	uint32_t parity, nparity;   /* parity chunks, behind the data */
};
void um_group_layout(const struct um_super *super, uint32_t ag, struct um_group *out);
/* Can the chunk's blocks be allocated? */
bool um_chunk_usable(const struct um_super *super, uint64_t chunk);
/* The superblock of a pool in use changes when the pool grows; these bits never do. */
static inline bool um_super_has(const struct um_super *super, uint64_t incompat)
{
	return __atomic_load_n(&super->incompat, __ATOMIC_RELAXED) & incompat;
}
static inline bool um_has_csum(const struct um_pool *pool)
{
	return um_super_has(&pool->super, UM_INCOMPAT_DATA_CSUM);
}
static inline bool um_has_parity(const struct um_pool *pool)
{
	return um_super_has(&pool->super, UM_INCOMPAT_PARITY);
}
/* With parity: the parity block of the stripe of an allocatable block; the block that records which
 * blocks of a chunk it covers. */
um_lba_t um_parity_lba(const struct um_pool *pool, um_lba_t lba);
struct um_ptr um_cover_ptr(const struct um_pool *pool, uint64_t chunk);
/* With checksums: pointer to those of a chunk, and to the block that records which chunks of a
 * group have them. */
struct um_ptr um_csums_ptr(const struct um_pool *pool, uint64_t chunk);
struct um_ptr um_csum_ag_ptr(const struct um_pool *pool, uint32_t ag);
/* Address of the second copy of the superblock; the same for a pool of nchunks that never grew. */
um_lba_t um_super_second(const struct um_super *super);
um_lba_t um_super_mirror(uint64_t nchunks);
/* Number of groups in a pool, or an extension of one, of nchunks; a tail shorter than
 * UM_AG_MIN_CHUNKS is cut off: *out_used. */
uint32_t um_pool_groups(uint64_t nchunks, uint64_t *out_used);
/* The superblock of a pool that grows to nchunks, rounded down to what can be used: *out_super,
 * unsealed. -EINVAL: not larger; -E2BIG: it has UM_SEAMS_MAX seams. */
int um_super_grow(const struct um_super *super, uint64_t nchunks, struct um_super *out_super);

/* ---- blocks that describe themselves ---------------------------------------------------------- */

/* XXH3-64 of a block with the checksum field as zero. */
uint64_t um_block_csum(const void *block);
/* True for the first of several reports about one block: a scan over bad ones must not flood the
 * log. */
bool um_pool_report_once(struct um_pool *pool, um_lba_t lba);
/* Checksum of a block of file data. */
uint32_t um_data_csum(const void *block);
/* Fills in the header of a new block; the body is unchanged. */
void um_block_init(const struct um_pool *pool, void *block, enum um_kind kind, uint8_t level,
	struct um_ptr at, uint64_t birth, uint64_t owner);
void um_block_seal(void *block); /* sets the checksum */
/* 0, or -EUCLEAN with *why (static text) if block, read at lba, is not a valid block of kind. */
int um_block_verify(const struct um_pool *pool, const void *block, um_lba_t lba, enum um_kind kind,
	const char **why);
/*
 * The metadata block at ptr, in the mapping. It is verified on first use; the mirror is used (and
 * the repair queued) if the primary is bad. -EUCLEAN and one log line naming the block: no copy is
 * good; -EIO: it cannot be read.
 */
int um_block_get(struct um_pool *pool, struct um_ptr ptr, enum um_kind kind, const void **out);

/* Verifies both copies, even if they were verified before, and queues repairs. Returns the number
 * of bad copies. */
unsigned um_block_scrub(struct um_pool *pool, struct um_ptr ptr, enum um_kind kind);
/* Copies the good copy of a metadata block over its bad one; *out_fixed is the block rewritten, or
 * 0 if both were good. -EUCLEAN: neither is. The caller excludes readers (the log's apply lock). */
int um_block_repair(
	struct um_pool *pool, struct um_ptr ptr, enum um_kind kind, um_lba_t *out_fixed);

#endif
