/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The medium: every structure that umbrafs stores in a pool. FORMAT.md describes each byte in
 * prose.
 *
 * Integers are little-endian. The pool is used in place, mapped, so the code is built for
 * little-endian machines only (all of libpmem's are); the um_leNN_t names mark what is stored.
 */
#ifndef UM_POOL_FORMAT_H
#define UM_POOL_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "umbrafs pools are little-endian and used in place: build on a little-endian machine"
#endif

typedef uint16_t um_le16_t;
typedef uint32_t um_le32_t;
typedef uint64_t um_le64_t;

typedef uint64_t um_lba_t; /* number of a 4 KiB block in the pool; 0 holds the superblock: "none" */
typedef uint64_t um_ino_t; /* inode number, from a 64-bit counter, never reused */

#define UM_BLOCK_SHIFT 12
#define UM_BLOCK_SIZE 4096u
#define UM_CHUNK_BLOCKS 512u /* 2 MiB, aligned */
#define UM_CHUNK_SIZE (UM_CHUNK_BLOCKS * (uint64_t)UM_BLOCK_SIZE)
#define UM_AG_CHUNKS 504u /* an allocation group: chunks whose words fit one block */
#define UM_AG_BLOCKS (UM_AG_CHUNKS * UM_CHUNK_BLOCKS)
#define UM_LBA_BITS 48
#define UM_LBA_MASK ((1ULL << UM_LBA_BITS) - 1)
#define UM_POOL_MIN_SIZE (8 * UM_CHUNK_SIZE) /* 16 MiB */

#define UM_POOL_MAGIC "umbrafs\0" /* 8 bytes at offset 64 of the pool */
#define UM_FORMAT_VERSION 1u

/* Feature bits. Unknown compat: ignore; unknown ro_compat: mount read-only; unknown incompat:
 * refuse. */
#define UM_COMPAT_KNOWN 0ull
#define UM_RO_COMPAT_KNOWN 0ull
#define UM_INCOMPAT_DATA_CSUM 1ull /* each written block of file data has a checksum */
#define UM_INCOMPAT_PARITY 2ull    /* every 8 blocks in use have a block of parity */
#define UM_INCOMPAT_SEAMS 4ull     /* the pool has grown: groups also begin at seams */
#define UM_INCOMPAT_KNOWN (UM_INCOMPAT_DATA_CSUM | UM_INCOMPAT_PARITY | UM_INCOMPAT_SEAMS)

/* Kinds of metadata block; the first byte pair of the magic is "UM", so a dump is readable. */
enum um_kind {
	UM_KIND_SUPER = 1,    /* superblock */
	UM_KIND_AG = 2,       /* chunk words of one allocation group */
	UM_KIND_REF = 3,      /* reference counts of one chunk */
	UM_KIND_ROOT = 4,     /* pool root: roots of the pool's own trees, counters */
	UM_KIND_JOURNAL = 5,  /* journal header */
	UM_KIND_INODES = 6,   /* tree node: inode number -> inode record */
	UM_KIND_EXTENTS = 7,  /* tree node: file block -> extent */
	UM_KIND_DIR = 8,      /* tree node: name hash -> directory entry */
	UM_KIND_XATTR = 9,    /* tree node: name hash -> extended attribute piece */
	UM_KIND_ORPHANS = 10, /* tree node: inode number -> orphan record */
	UM_KIND_REMAP = 11,   /* tree node: bad LBA -> struct um_bad */
	UM_KIND_EVENTS = 12,  /* tree node: event number -> struct um_event */
	UM_KIND_CSUMS = 13,   /* checksums of one chunk's file data */
	UM_KIND_CSUM_AG = 14, /* which chunks of a group have such a block */
	UM_KIND_COVER = 15,   /* which blocks are in the parity of their stripe */
	UM_KIND_MAX,
	UM_KIND_PARITY = 16,  /* has no header: in events only */
	UM_KIND_NOTHING = 17, /* free, or a place of no use: in events only */
};
#define UM_BLOCK_MAGIC 0x424d55u /* "UMB" in the low three bytes, the kind in the fourth */
#define UM_MAGIC(kind) (UM_BLOCK_MAGIC | ((uint32_t)(kind) << 24))

/*
 * A pointer to a metadata block. `mirror` is the second, byte-identical copy, far away from the
 * first; 0 when the pool was made with a single copy. Reference counts: the primary's count is the
 * number of parents; the mirror's is 1 as long as the primary is in use.
 */
struct um_ptr {
	um_le64_t lba;
	um_le64_t mirror;
};
static_assert(sizeof(struct um_ptr) == 16, "um_ptr");

/* First bytes of every metadata block (the journal's records excepted). Same bytes in both
 * copies. */
struct um_block_hdr {
	um_le32_t magic;  /* UM_MAGIC(kind) */
	uint8_t kind;     /* enum um_kind */
	uint8_t level;    /* tree nodes: 0 = leaf */
	um_le16_t flags;  /* 0 */
	um_le64_t csum;   /* XXH3-64 of the 4096 bytes with this field as 0 */
	um_le64_t lba;    /* address of the primary copy */
	um_le64_t mirror; /* address of the second copy, or 0 */
	uint8_t uuid[16]; /* the pool's */
	um_le64_t birth;  /* sequence number of the transaction that allocated the block */
	um_le64_t owner;  /* inode number where a block cannot be shared, else 0 */
};
static_assert(sizeof(struct um_block_hdr) == 64, "um_block_hdr");
static_assert(offsetof(struct um_block_hdr, csum) == 8, "um_block_hdr.csum");

/* ---- trees ------------------------------------------------------------------------------- */

/*
 * The body of a tree node, and of a small tree's embedded root inside an inode record: a head,
 * then `nrec` slots in ascending key order growing up, then free space, then values growing down
 * from the end. In a node the body starts behind the block header and is UM_NODE_BODY long.
 * Interior nodes (level > 0): value is a struct um_ptr; key is the smallest key that may be below
 * (slot 0's key is never compared: everything smaller than slot 1's key is below slot 0).
 */
struct um_body_head {
	um_le16_t nrec;
	um_le16_t heap; /* offset in the body of the lowest value byte; capacity when empty */
	um_le16_t dead; /* value bytes above `heap` that no slot uses */
	um_le16_t pad;  /* 0 */
};
static_assert(sizeof(struct um_body_head) == 8, "um_body_head");

struct um_slot {
	um_le64_t key;
	um_le16_t off; /* of the value, in the body */
	um_le16_t len; /* of the value, bytes */
} __attribute__((packed));
static_assert(sizeof(struct um_slot) == 12, "um_slot");

#define UM_NODE_BODY (UM_BLOCK_SIZE - sizeof(struct um_block_hdr)) /* 4032 */
#define UM_VALUE_MAX 1312u /* three records of any size fit a leaf */
#define UM_TREE_LEVELS 12  /* more means a corrupted tree */

/* Where a tree begins. Lives in the pool root and in inode records. */
enum um_root_format {
	UM_ROOT_EMPTY = 0,
	UM_ROOT_INLINE = 1, /* `len` raw bytes follow the inode core: file data or symlink target */
	UM_ROOT_EMBED = 2,  /* a body of `len` bytes follows the inode core: the leaf itself */
	UM_ROOT_NODE = 3,   /* `ptr` is the root node at height `level` */
};
struct um_root {
	struct um_ptr ptr;
	uint8_t format; /* enum um_root_format */
	uint8_t level;  /* of the root node */
	um_le16_t len;  /* bytes in the inode record, INLINE and EMBED */
	um_le32_t pad;
};
static_assert(sizeof(struct um_root) == 24, "um_root");

/* ---- superblock, groups, counts ------------------------------------------------------------ */

/* A pool that has grown: its groups begin anew at this chunk, whatever the one before it has come
 * to. */
struct um_seam {
	um_le64_t chunk;
	um_le64_t group; /* number of the group that begins there */
};
#define UM_SEAMS_MAX 240u

struct um_super {
	struct um_block_hdr hdr; /* kind UM_KIND_SUPER; lba 0; mirror: see FORMAT.md */
	char magic[8];           /* UM_POOL_MAGIC */
	um_le32_t version;       /* UM_FORMAT_VERSION */
	um_le32_t block_size;    /* UM_BLOCK_SIZE */
	um_le64_t nchunks;       /* size of the pool in chunks */
	um_le64_t compat, ro_compat, incompat;
	um_le64_t journal_lba;    /* first block of the journal */
	um_le64_t journal_blocks; /* length, header block included */
	um_le64_t journal_mirror; /* first block of the journal's second copy, or 0 */
	um_le64_t hash_seed;      /* of directory and xattr name hashes */
	um_le64_t made_sec;       /* when mkfs ran, seconds since the epoch */
	struct um_ptr root;       /* the pool root block */
	uint8_t copies;           /* metadata copies: 1 or 2 */
	uint8_t kind_made;        /* enum umbra_pool_kind that mkfs saw; informative */
	uint8_t pad[6];
	char label[64];   /* UTF-8, NUL-padded */
	um_le32_t nseams; /* with UM_INCOMPAT_SEAMS; else 0 */
	uint8_t pad2[4];
	struct um_seam seam[UM_SEAMS_MAX]; /* ascending */
};
static_assert(offsetof(struct um_super, magic) == 64, "um_super.magic");
static_assert(offsetof(struct um_super, nseams) == 240, "um_super.nseams");
static_assert(sizeof(struct um_super) == 4088, "um_super");

/*
 * Layout of an allocation group of n chunks (504, fewer in the last group and in the last before a
 * seam; never fewer than 4: a shorter tail joins nothing and stays unused). Chunk 0 is the group's
 * table chunk, chunk n-1 its mirror (always reserved: the superblock's second copy is there even
 * when copies == 1). With UM_INCOMPAT_DATA_CSUM chunk 1 holds checksums and, when copies == 2,
 * chunk n-2 their mirror. With UM_INCOMPAT_PARITY the last ninth of what is left between is parity.
 * Blocks of the table chunk:
 *   0        superblock (group 0) or a backup copy of it
 *   1        struct um_ag
 *   2        pool root (group 0 only)
 *   3 to 7   a note of mkfs, see struct um_bad_note; else unused
 *   8 + i    reference counts of chunk i (unused for the table chunks themselves)
 * Blocks of the checksum chunk:
 *   1        struct um_csum_ag
 *   8 + i    checksums of chunk i
 */
#define UM_AG_MIN_CHUNKS 4u
#define UM_TABLE_NOTE 3u /* struct um_bad_note, while mkfs replaces a pool */
#define UM_NOTE_BLOCKS 5u
#define UM_TABLE_SUPER 0u
#define UM_TABLE_AG 1u
#define UM_TABLE_ROOT 2u
#define UM_TABLE_REF 8u

/*
 * Which blocks are bad, while mkfs replaces the pool that knows them. Block i of the note is block 3 + i % 5 of the table
 * chunk of group i / 5 of the pool to be, and of its mirror chunk. Only those of chunk 0 are unused in every old pool.
 */
#define UM_NOTE_MAGIC "umbbads\0" /* 8 bytes */
#define UM_NOTE_RUNS 507u
struct um_bad_note {
	char magic[8];
	um_le64_t csum;         /* XXH3-64 of the block with this field as 0 */
	um_le64_t id;           /* the same in all blocks of a note, another in each note */
	um_le32_t index, count; /* this block's number; how many there are */
	um_le32_t nruns;
	um_le32_t pad;
	um_le64_t run[UM_NOTE_RUNS]; /* LBA << 16 | number of blocks */
};
static_assert(sizeof(struct um_bad_note) == UM_BLOCK_SIZE, "um_bad_note");
static_assert(offsetof(struct um_bad_note, csum) == 8, "where um_block_csum has it");

/* A chunk's word: what is known about 512 blocks at once. */
#define UM_WORD_STATE(w) ((unsigned)((w)&3))
#define UM_WORD_NFREE(w) ((unsigned)(((w) >> 2) & 0x3ff))
#define UM_WORD_COUNT(w) ((uint32_t)((w) >> 32))
#define UM_WORD(state, nfree, count)                                                               \
	((uint64_t)(state) | (uint64_t)(nfree) << 2 | (uint64_t)(count) << 32)
enum um_chunk_state {
	UM_CHUNK_UNIFORM = 0, /* every block has the word's count; word 0 is an all-free chunk */
	UM_CHUNK_MIXED = 1,   /* counts are in the chunk's struct um_refs; nfree of them are 0 */
	UM_CHUNK_STATIC = 2,  /* tables, checksums, their mirrors; never allocated, never counted */
};

struct um_ag {
	struct um_block_hdr hdr; /* kind UM_KIND_AG */
	um_le64_t word[UM_AG_CHUNKS];
};
static_assert(sizeof(struct um_ag) == UM_BLOCK_SIZE, "um_ag");

#define UM_REF_MAX 0xfffffff0u     /* a count never passes this: the next sharer copies instead */
#define UM_REF_RETIRED 0xffffffffu /* the memory is bad: owned by nobody, never allocated again */
struct um_refs {
	struct um_block_hdr hdr; /* kind UM_KIND_REF; owner: chunk number */
	um_le32_t count[UM_CHUNK_BLOCKS];
	uint8_t pad[UM_BLOCK_SIZE - 64 - 4 * UM_CHUNK_BLOCKS]; /* 0 */
};
static_assert(sizeof(struct um_refs) == UM_BLOCK_SIZE, "um_refs");

/* Low half of the XXH3-64 of each block; meaningful for written blocks of file data only. */
struct um_csums {
	struct um_block_hdr hdr; /* kind UM_KIND_CSUMS; owner: chunk number */
	um_le32_t value[UM_CHUNK_BLOCKS];
	uint8_t pad[UM_BLOCK_SIZE - 64 - 4 * UM_CHUNK_BLOCKS]; /* 0 */
};
static_assert(sizeof(struct um_csums) == UM_BLOCK_SIZE, "um_csums");
struct um_csum_ag {
	struct um_block_hdr hdr;              /* kind UM_KIND_CSUM_AG */
	um_le64_t valid[8];                   /* bit i: chunk i's checksums have been written */
	uint8_t pad[UM_BLOCK_SIZE - 64 - 64]; /* 0 */
};
static_assert(sizeof(struct um_csum_ag) == UM_BLOCK_SIZE, "um_csum_ag");

/*
 * Parity: block i of a group's allocatable blocks belongs to stripe i / 8, whose parity is block i
 * / 8 of the parity chunks. Blocks of the table chunk, in the places of the parity chunks' counts,
 * record which blocks are covered.
 */
#define UM_PARITY_WIDTH 8u
#define UM_COVER_CHUNKS 63u /* chunks whose bits are in one block */
struct um_cover {
	struct um_block_hdr hdr; /* kind UM_KIND_COVER */
	um_le64_t bits[UM_COVER_CHUNKS][UM_CHUNK_BLOCKS / 64];
};
static_assert(sizeof(struct um_cover) == UM_BLOCK_SIZE, "um_cover");

struct um_pool_root {
	struct um_block_hdr hdr; /* kind UM_KIND_ROOT */
	um_le64_t next_ino;
	um_le64_t ninodes;
	um_le64_t mounts;    /* times mounted for writing */
	um_le64_t mount_sec; /* last such mount */
	um_le32_t clean;     /* 1 after a clean unmount; informative */
	um_le32_t errors;    /* inconsistencies found while mounted; fsck clears it */
	struct um_root inodes;
	struct um_root orphans;
	struct um_root remap;
	struct um_root events;
	um_le32_t loose_tails; /* 1: bytes beyond the ends of files may be non-zero */
	um_le32_t pad;
	um_le64_t retired;   /* blocks whose count is UM_REF_RETIRED */
	um_le64_t scrub_pos; /* position of the last scrub, see fs/scrub.c */
	um_le64_t scrub_sec; /* end of the last complete scrub */
	um_le32_t scrub_phase;
	um_le32_t pad2;
	um_le64_t repairs; /* transactions made only to rewrite bad copies; informative */
	um_le64_t reserved[10];
};

/* ---- inodes ---------------------------------------------------------------------------------- */

#define UM_ROOT_INO 1ull /* the root directory, FUSE's root id too */
#define UM_FIRST_INO 16ull

struct um_time {
	um_le64_t sec; /* signed */
	um_le32_t nsec;
	um_le32_t pad;
};

/* Value in the inode tree: this core, then data.len bytes, then xattr.len bytes. */
struct um_inode_core {
	um_le32_t mode; /* as in stat(2) */
	um_le32_t nlink;
	um_le32_t uid;
	um_le32_t gid;
	um_le64_t size;   /* bytes; directories: number of entries */
	um_le64_t blocks; /* data blocks referenced, shared ones included */
	struct um_time atime, mtime, ctime, btime;
	um_le32_t flags;      /* FS_*_FL of linux/fs.h */
	um_le32_t generation; /* for NFS handles */
	um_le64_t rdev;       /* as of makedev(3) */
	um_le64_t parent;     /* directories: inode of ".." */
	um_le64_t change;     /* raised by every change of the content */
	struct um_root data;
	struct um_root xattr;
};
static_assert(sizeof(struct um_inode_core) == 32 + 64 + 8 + 24 + 48, "um_inode_core"); /* 176 */

#define UM_INLINE_MAX 480u /* largest INLINE payload and EMBED body of the data fork */
#define UM_XATTR_EMBED_MAX 480u

/* Value in an extents tree; the key is the first file block. Never crosses a chunk of the pool. */
struct um_extent {
	um_le64_t addr; /* LBA in the low 48 bits, UM_EXTENT_* above */
	um_le32_t len;  /* blocks, 1 to UM_CHUNK_BLOCKS */
	um_le32_t pad;
};
static_assert(sizeof(struct um_extent) == 16, "um_extent");
#define UM_EXTENT_UNWRITTEN (1ull << 48) /* allocated, reads as zeros */

/*
 * Directory key: (59-bit hash of the name) << 4 | n, where n distinguishes names of equal hash;
 * hash 0 is taken as 1, so keys 0 to 15 are free for "." and "..". The key is the entry's telldir
 * cookie.
 */
struct um_dirent {
	um_le64_t ino;
	uint8_t type; /* DT_* */
	uint8_t namelen;
	char name[]; /* namelen bytes, not terminated */
} __attribute__((packed));
static_assert(sizeof(struct um_dirent) == 10, "um_dirent");

/*
 * Xattr key: (49-bit hash of the full name) << 14 | n << 10 | piece. Piece 0 begins with this head
 * and the name; value bytes follow, and continue in pieces 1.. of up to UM_XATTR_PIECE bytes each.
 * Hash 0 is taken as 1. Key 1 << 10 | piece (hash 0, n 1) holds a symlink target longer than
 * UM_INLINE_MAX, as raw bytes in pieces 0...
 */
struct um_xattr {
	um_le32_t len; /* of the value, bytes */
	uint8_t namelen;
	uint8_t pad[3];
	char name[];
} __attribute__((packed));
static_assert(sizeof(struct um_xattr) == 8, "um_xattr");
#define UM_XATTR_PIECE 1024u
#define UM_XATTR_VALUE_MAX 65536u

/* Value in the orphan tree. */
struct um_orphan {
	um_le32_t what; /* UM_ORPHAN_* */
	um_le32_t pad;
	um_le64_t arg; /* TRUNCATE: first file block to drop; TMPFILE: that + 1, or 0 for none */
};
#define UM_ORPHAN_UNLINKED 1u /* no link left: remove once nobody has it open */
#define UM_ORPHAN_TRUNCATE 2u /* blocks from `arg` on lie beyond the end of the file: drop them */
#define UM_ORPHAN_TMPFILE 3u  /* created without a link, may still get one; else as UNLINKED */

/* ---- memory failure ------------------------------------------------------------------------------ */

/* Value in the remap tree; the key is the number of a block whose memory failed. */
struct um_bad {
	um_le64_t to;    /* MOVED: where its bytes are; else 0 */
	um_le32_t flags; /* UM_BAD_* */
	um_le32_t kind;  /* enum um_kind of what was there, 0: file data */
	um_le64_t sec;   /* when, seconds since the epoch */
};
static_assert(sizeof(struct um_bad) == 24, "um_bad");
#define UM_BAD_LOST 1u  /* there are no bytes: reads fail */
#define UM_BAD_MOVED 2u /* they are at `to` */
#define UM_BAD_TOLD 4u  /* no event is outstanding */
#define UM_BAD_WRONG 8u /* with LOST: the memory is good, the bytes did not match their checksum */

/* Value in the event tree; keys ascend from 1. Owners follow. */
struct um_event {
	um_le64_t sec;
	um_le64_t lba;
	um_le64_t other;  /* where its bytes are now, or 0 */
	uint8_t kind;     /* enum um_kind; 0: file data */
	uint8_t cause;    /* UM_CAUSE_* */
	uint8_t done;     /* UM_DONE_* */
	uint8_t nowners;  /* number that follow */
	um_le32_t owners; /* total number, as far as they were counted */
	um_le64_t pad;
};
static_assert(sizeof(struct um_event) == 40, "um_event");
#define UM_CAUSE_MEMORY 1u   /* a load or a store failed */
#define UM_CAUSE_CHECKSUM 2u /* the bytes were wrong */
#define UM_DONE_LOST 1u      /* not possible: reads of these pages fail until they are written */
#define UM_DONE_MOVED 2u     /* good bytes, from `other` or rebuilt, are elsewhere now */
#define UM_DONE_REWRITTEN 3u /* in place, from the other copy or parity */
#define UM_DONE_RETIRED 4u   /* it was free, and is no longer used */
#define UM_DONE_ONE_COPY 5u  /* it stays bad; only the other copy is used */
#define UM_DONE_NO_COPY 6u   /* both copies of metadata are bad: run fsck */
struct um_event_owner {
	um_le64_t ino, off; /* off: bytes; metadata: 0 */
	um_le16_t len;      /* of the path that follows; 0: none is known */
} __attribute__((packed));
#define UM_EVENT_OWNERS 8u /* listed in an event */
#define UM_EVENT_PATH 140u /* bytes of a path that are kept: its end */
#define UM_EVENTS_KEPT 512u

/* ---- journal ------------------------------------------------------------------------------------ */

/* First block of the journal. Records follow in the remaining blocks, as a ring of bytes. */
struct um_journal {
	struct um_block_hdr hdr; /* kind UM_KIND_JOURNAL; covers bytes 0-127 only, see FORMAT.md */
	uint8_t boot_id[16];     /* of the boot (^ disk sequence) that last mounted for writing */
	um_le64_t first_seq;     /* sequence number the ring started with at that mount */
	um_le32_t mode;          /* UM_JOURNAL_*: how its records were written */
	uint8_t pad[36];
	/*
	 * Where replay starts: offset in the ring / 64 in the high 32 bits, low 32 bits of the
	 * sequence number expected there in the low 32. One aligned word, so it changes at once;
	 * on its own cache line, outside the checksum.
	 */
	um_le64_t tail;
	um_le64_t tail_seq; /* full sequence number; a hint whose low half must match `tail` */
};
static_assert(offsetof(struct um_journal, tail) == 128, "um_journal.tail");

/* DIRECT: a record was on the medium before its transaction touched anything, so each valid one
 * counts. GROUPS: of another boot's records only those covered by a COMMIT record count. */
#define UM_JOURNAL_DIRECT 1u
#define UM_JOURNAL_GROUPS 2u

/* A record: one transaction. Aligned to 64 bytes, never wraps (a WRAP record fills the end). */
struct um_record {
	um_le32_t magic; /* UM_RECORD_MAGIC */
	um_le32_t type;  /* UM_RECORD_* */
	um_le64_t seq;   /* TXN: consecutive; WRAP and COMMIT: that of the TXN record before them */
	um_le64_t len;   /* bytes, this head included, multiple of 64 */
	um_le64_t
		csum; /* XXH3-64 of the record with this field 0, seeded with hdr uuid's first 8 bytes */
	um_le32_t nentry;
	um_le32_t pad;
	um_le64_t covers; /* COMMIT: records up to this number and their data are on the medium */
	um_le64_t reserved[2];
};
static_assert(sizeof(struct um_record) == 64, "um_record");
#define UM_RECORD_MAGIC 0x4a424d55u /* "UMBJ" */
#define UM_RECORD_TXN 1u
#define UM_RECORD_WRAP 2u   /* continue at the ring's start */
#define UM_RECORD_COMMIT 3u /* plain files: a group is durable, see `covers` and UM_ENTRY_SUM */

struct um_entry {
	um_le64_t lba;
	um_le64_t mirror; /* second home of the same bytes, or 0; SUM: checksum */
	um_le16_t off;    /* in the block */
	um_le16_t type;   /* UM_ENTRY_* */
	um_le32_t len;    /* bytes to change from off; may run over following blocks for DATA */
	um_le32_t value;  /* FILL */
	um_le32_t pad;
	/* BYTES and DATA: len bytes follow, padded to 8 */
};
static_assert(sizeof(struct um_entry) == 32, "um_entry");
#define UM_ENTRY_BYTES 1u /* new content of a range of a metadata block */
#define UM_ENTRY_FILL 2u  /* the range becomes copies of the 32-bit value (runs of equal counts) */
#define UM_ENTRY_DATA 3u  /* new content of file data, contiguous LBAs from lba */
#define UM_ENTRY_SUM                                                                               \
	4u /* COMMIT only: data that has to be present; mirror is its XXH3-64, seeded as above */

#endif
