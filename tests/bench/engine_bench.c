/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The cost of single operations of the engine, without FUSE: in this process, on a pool in memory
 * or, with -p, on a pool that is created at PATH (PMEM_IS_PMEM_FORCE=1: with the flushes of a DAX
 * pool).
 *   engine_bench [-p PATH] [-c] [-C] [-P] [KIND [N]]
 *
 * Prints median, 90th percentile and worst of N runs in nanoseconds, for one KIND or for each. -c:
 * reference counts are not in the processor's caches. -C: with data checksums; -P: with parity.
 * Only measured() runs the measured code, so instructions are counted with
 *   valgrind --tool=callgrind --toggle-collect=measured engine_bench KIND N
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fs/data.h"

enum {
	EXTENTS = 143,     /* records that a leaf of extents holds */
	LEAVES = 3,        /* of the fragmented file */
	PIECE = 511,       /* blocks of each of its extents, in a chunk of its own */
	RUNS_MAX = 100000, /* of one kind */
	FILES = 1000,      /* in the directory */
	PLAIN = 4096,      /* blocks of the unshared file */
};
#define POOL_SIZE (2048ull << 20)

struct bench {
	struct umbra_fs *fs;
	uint64_t plain, frag, empty; /* inodes */
	uint64_t dir;
	uint64_t ino; /* of the run at hand */
	uint64_t random;
	unsigned run;
};

static const char *pool_path;
static bool cold, data_csum, parity;

static void die(const char *what, int err)
{
	fprintf(stderr, "engine_bench: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

static void must(const char *what, int err)
{
	if (err)
		die(what, err);
}

static uint64_t next_random(struct bench *b)
{
	b->random ^= b->random << 13, b->random ^= b->random >> 7, b->random ^= b->random << 17;
	return b->random;
}

/* ---- the pool and what is in it ---------------------------------------------------------------------- */

static void open_pool(struct bench *b)
{
	struct umbra_mkfs_options mkfs = {.size = POOL_SIZE,
		.sparse = true,
		.force = true,
		.data_csum = data_csum,
		.parity = parity};
	struct umbra_options opt = {.atime = UMBRA_NOATIME};
	struct umbra_info info;
	void *base;

	if (pool_path) {
		must(pool_path, umbra_mkfs(pool_path, &mkfs, &info));
		must(pool_path, umbra_open(pool_path, &opt, &b->fs));
		return;
	}
	base = mmap(NULL, POOL_SIZE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		die("mmap", errno);
	must("mkfs", umbra_mkfs_image(base, POOL_SIZE, &mkfs));
	must("open", umbra_open_image(base, POOL_SIZE, &opt, &b->fs));
}

static uint64_t make(struct bench *b, uint64_t dir, const char *name, mode_t mode)
{
	struct umbra_cred cred = {.umask = 022};
	struct umbra_attr attr;

	must(name, umbra_mknod(b->fs, dir, name, mode, 0, &cred, &attr));
	return attr.st.st_ino;
}

/* One extent of the fragmented file: all but the first block of the next chunk that is free. */
static int add_piece(
	struct bench *b, struct um_txn *txn, struct um_tree *tree, unsigned i, uint64_t *chunk)
{
	um_lba_t lba;
	uint32_t got;
	int err;

	for (;; ++*chunk) {
		um_lba_t goal = *chunk * UM_CHUNK_BLOCKS + 1;

		err = um_space_take(b->fs->space, goal, PIECE, 0, &lba, &got);
		if (err || (lba == goal && got == PIECE))
			break;
		um_space_give(b->fs->space, lba, got);
	}
	if (!err)
		err = um_ref_alloc(txn, lba, got);
	++*chunk;
	return err ? err : um_extents_add(txn, tree, (uint64_t)i * PIECE, got, lba, true);
}

/* A file whose leaves are full, each extent in a chunk with counts of its own: the worst to be
 * copied. */
static void make_fragmented(struct bench *b)
{
	unsigned i = 0, end;
	uint64_t chunk = 16;

	b->frag = make(b, UM_ROOT_INO, "fragmented", S_IFREG | 0644);
	while (i < EXTENTS * LEAVES) {
		struct um_inode inode;
		struct um_tree tree;
		struct um_txn *txn;

		must("begin", um_txn_begin(b->fs->log, 0, &txn));
		must("load", um_inode_load(um_txn_src(txn), b->frag, &inode));
		um_inode_tree(&inode, UM_FORK_DATA, &tree);
		for (end = i + 16; i < end && i < EXTENTS * LEAVES; i++)
			must("extent", add_piece(b, txn, &tree, i, &chunk));
		um_inode_set_tree(&inode, UM_FORK_DATA, &tree);
		inode.core.blocks = (uint64_t)i * PIECE;
		inode.core.size = inode.core.blocks << UM_BLOCK_SHIFT;
		must("store", um_inode_store(txn, &inode));
		must("commit", um_txn_commit(txn));
	}
}

static uint8_t piece[1 << 20];

static void make_all(struct bench *b)
{
	char name[32];

	b->random = 88172645463325252ull;
	open_pool(b);
	make_fragmented(b);
	b->plain = make(b, UM_ROOT_INO, "plain", S_IFREG | 0644);
	b->empty = make(b, UM_ROOT_INO, "empty", S_IFREG | 0644);
	for (uint64_t off = 0; off < (uint64_t)PLAIN << UM_BLOCK_SHIFT; off += sizeof(piece))
		if (umbra_write(b->fs, b->plain, piece, sizeof(piece), off, 0, NULL) !=
			(ssize_t)sizeof(piece))
			die("write", EIO);
	b->dir = make(b, UM_ROOT_INO, "dir", S_IFDIR | 0755);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		make(b, b->dir, name, S_IFREG | 0644);
	}
}

/* ---- the kinds ------------------------------------------------------------------------------------------ */

struct kind {
	const char *name, *what;
	unsigned runs;
	void (*before)(struct bench *b);
	void (*op)(struct bench *b);
	void (*after)(struct bench *b);
};

static void name_of(const struct bench *b, char name[32])
{
	snprintf(name, 32, "new-%u", b->run);
}

static void make_new(struct bench *b)
{
	char name[32];

	name_of(b, name);
	b->ino = make(b, UM_ROOT_INO, name, S_IFREG | 0644);
}

static void remove_new(struct bench *b)
{
	char name[32];

	name_of(b, name);
	must("unlink", umbra_unlink(b->fs, UM_ROOT_INO, name));
}

static void forget_new(struct bench *b)
{
	umbra_forget(b->fs, b->ino, 1);
	um_reaper_wait(b->fs, 1000);
}

static void drop_new(struct bench *b)
{
	remove_new(b);
	forget_new(b);
}

static void clone_fragmented(struct bench *b)
{
	must("clone", umbra_clone(b->fs, b->frag, b->ino));
}

static void make_clone(struct bench *b)
{
	make_new(b);
	clone_fragmented(b);
}

static void write_block(struct bench *b, uint64_t ino, uint64_t block)
{
	if (umbra_write(b->fs, ino, piece, UM_BLOCK_SIZE, block << UM_BLOCK_SHIFT, 0, NULL) !=
		UM_BLOCK_SIZE)
		die("write", EIO);
}

static void write_middle(struct bench *b)
{
	write_block(b, b->ino, (EXTENTS * LEAVES / 2) * PIECE + PIECE / 2);
}

static void make_written(struct bench *b)
{
	make_clone(b);
	write_middle(b);
}

static void overwrite(struct bench *b)
{
	write_block(b, b->plain, next_random(b) % PLAIN);
}

static void read_block(struct bench *b)
{
	struct iovec iov[4];
	unsigned n;
	size_t len;

	umbra_read_begin(b->fs);
	must("read", umbra_read_iov(b->fs, b->plain, next_random(b) % PLAIN << UM_BLOCK_SHIFT,
			     UM_BLOCK_SIZE, iov, 4, &n, &len));
	umbra_read_end(b->fs);
}

#define LARGE (1u << 20)
static uint8_t large[LARGE];

/* Into a buffer, as the crossing to the kernel copies. */
static void read_large(struct bench *b)
{
	if (umbra_read(b->fs, b->plain, large, LARGE, next_random(b) % 16 * LARGE) != LARGE)
		die("read", EIO);
}

static void write_large(struct bench *b)
{
	if (umbra_write(b->fs, b->ino, large, LARGE, 0, 0, NULL) != LARGE)
		die("write", EIO);
}

static void set_times(struct bench *b)
{
	struct umbra_attr attr = {.flags = 0}, out;

	must("setattr", umbra_setattr(b->fs, b->plain, &attr, UMBRA_SET_MTIME_NOW, &out));
}

static void look_up(struct bench *b)
{
	struct umbra_attr attr;
	char name[32];

	snprintf(name, sizeof(name), "file-%u", (unsigned)(next_random(b) % FILES));
	must("lookup", umbra_lookup(b->fs, b->dir, name, &attr));
	umbra_forget(b->fs, attr.st.st_ino, 1);
}

static void get_attr(struct bench *b)
{
	struct umbra_attr attr;

	must("getattr", umbra_getattr(b->fs, b->plain, &attr));
}

static int take_entry(
	void *arg, const char *name, uint64_t ino, unsigned char type, uint64_t cookie)
{
	(void)name, (void)ino, (void)type, (void)cookie;
	++*(unsigned *)arg;
	return 0;
}

static void read_dir(struct bench *b)
{
	unsigned n = 0;

	must("readdir", umbra_readdir(b->fs, b->dir, 0, take_entry, &n));
	if (n != FILES + 2)
		die("readdir: entries missing", EIO);
}

static const struct kind kinds[] = {
	{"firstwrite", "first 4 KiB write after a clone, worst leaf", 200, make_clone, write_middle,
		drop_new},
	{"rewrite", "the same write again", 200, make_written, write_middle, drop_new},
	{"clone", "clone of a file of 429 extents", 1000, make_new, clone_fragmented, drop_new},
	{"overwrite", "4 KiB overwrite, unshared", 20000, NULL, overwrite, NULL},
	{"read", "4 KiB read, as an iovec", 20000, NULL, read_block, NULL},
	{"read1m", "1 MiB read, copied", 500, NULL, read_large, NULL},
	{"write1m", "1 MiB written to new blocks", 200, make_new, write_large, drop_new},
	{"settimes", "one attribute changed", 20000, NULL, set_times, NULL},
	{"getattr", "attributes", 20000, NULL, get_attr, NULL},
	{"lookup", "name among 1,000", 20000, NULL, look_up, NULL},
	{"readdir", "1,000 names", 1000, NULL, read_dir, NULL},
	{"create", "new file", 2000, NULL, make_new, drop_new},
	{"unlink", "last name of an empty file", 2000, make_new, remove_new, forget_new},
};

/* ---- running them ------------------------------------------------------------------------------------------ */

/* Its name is what callgrind is told to look at. */
__attribute__((noipa)) static void measured(const struct kind *kind, struct bench *b)
{
	kind->op(b);
	__asm__ volatile("" ::: "memory");
}

/* The groups' tables with all counts, out of the caches. */
static void cool(const struct bench *b)
{
	const struct um_pool *pool = b->fs->pool;

	for (uint32_t ag = 0; ag < pool->nags; ag++) {
		struct um_ptr ptr = um_ag_ptr(pool, ag);

		for (unsigned i = 0; i < UM_CHUNK_SIZE - UM_BLOCK_SIZE; i += 64) {
			__builtin_ia32_clflush((const uint8_t *)um_pool_ptr(pool, ptr.lba) + i);
			__builtin_ia32_clflush((const uint8_t *)um_pool_ptr(pool, ptr.mirror) + i);
		}
	}
	__builtin_ia32_mfence();
}

static uint64_t now_nsec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void run_kind(const struct kind *kind, struct bench *b, unsigned runs)
{
	static uint64_t nsec[RUNS_MAX];

	for (unsigned i = 0; i < runs; i++, b->run++) {
		if (kind->before)
			kind->before(b);
		if (cold)
			cool(b);
		nsec[i] = now_nsec();
		measured(kind, b);
		nsec[i] = now_nsec() - nsec[i];
		if (kind->after)
			kind->after(b);
	}
	qsort(nsec, runs, sizeof(nsec[0]), by_value);
	printf("%-12s%10llu%10llu%12llu  %s\n", kind->name, (unsigned long long)nsec[runs / 2],
		(unsigned long long)nsec[runs * 9ull / 10], (unsigned long long)nsec[runs - 1],
		kind->what);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const char *only = NULL;
	struct bench bench = {.run = 0};
	unsigned runs = 0, seen = 0;
	int opt;

	while ((opt = getopt(argc, argv, "p:cCP")) != -1) {
		if (opt == 'p')
			pool_path = optarg;
		else if (opt == 'c')
			cold = true;
		else if (opt == 'C')
			data_csum = true;
		else if (opt == 'P')
			parity = true;
		else
			return 1;
	}
	if (optind < argc)
		only = argv[optind++];
	if (optind < argc)
		runs = (unsigned)strtoul(argv[optind], NULL, 0);
	if (runs > RUNS_MAX)
		die("that many runs", EINVAL);
	make_all(&bench);
	printf("%-12s%10s%10s%12s\n", "ns", "median", "90 %", "worst");
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		unsigned n = runs ? runs : cold ? 100 : kinds[i].runs;

		if (only && strcmp(only, kinds[i].name))
			continue;
		run_kind(&kinds[i], &bench, n);
		seen++;
	}
	if (!seen)
		die(only, EINVAL);
	must("close", umbra_close(bench.fs));
	if (pool_path)
		unlink(pool_path);
	return 0;
}
