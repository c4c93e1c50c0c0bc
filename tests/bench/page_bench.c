/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Masters and shadows by the million: memory per shadow, and the cost of looking up, making and
 * tossing one, compared with a dependent pointer chase over as much memory and with the walk
 * through a file's tree.
 *   page_bench [-n SHADOWS] [-s SHARERS] [-j]      (10,000,000 and 8; -j: one JSON object)
 *
 * Every shadow is one block of a fragmented file, so none joins another: the worst case. With -s 1
 * each has a master of its own.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fs/data.h"
#include "page/page.h"

enum {
	OPS = 2000000,
	BATCH = 50000, /* the best of OPS / BATCH counts: other load on the machine only adds */
	STRIDE = 5,    /* blocks from one shadow of a file to the next */
	PER_FILE = 20000,
};
#define ZIPF_EXPONENT 0.99

struct bench {
	struct um_page *page;
	uint64_t n, sharers;
	uint32_t *order; /* OPS numbers of shadows */
	uint64_t random;
	uint64_t sum; /* of results, so that nothing is optimised away */
};

struct figures {
	double bytes, chase, uniform, zipf, insert, toss, walk, walk_cached;
	uint64_t held, masters, footprint;
};

static void die(const char *what, int err)
{
	fprintf(stderr, "page_bench: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static uint64_t next_random(struct bench *b)
{
	b->random ^= b->random << 13, b->random ^= b->random >> 7, b->random ^= b->random << 17;
	return b->random;
}

/*
 * Shadow i: files come in families of clones that share their blocks. A file has PER_FILE shadows,
 * the files of a family the same ones.
 */
static struct um_shadow nth(const struct bench *b, uint64_t i)
{
	uint64_t file = i / PER_FILE, place = i % PER_FILE;
	uint64_t family = file / b->sharers;

	return (struct um_shadow){
		.ino = 1000 + file,
		.block = place * STRIDE,
		.lba = 4096 + (family * PER_FILE + place) * UM_PAGE_WINDOW,
		.len = 1,
	};
}

static void add_nth(struct bench *b, uint64_t i)
{
	struct um_shadow s = nth(b, i);

	um_shadow_add(b->page, &s, um_shadow_seq(b->page, s.ino));
}

/* ---- orders ------------------------------------------------------------------------------------- */

static void order_uniform(struct bench *b)
{
	for (unsigned i = 0; i < OPS; i++)
		b->order[i] = (uint32_t)(next_random(b) % b->n);
}

/* Gray et al., "Quickly generating billion-record synthetic databases" (1994), as in YCSB; ranks
 * are spread over the shadows by a multiplication. */
static void order_zipf(struct bench *b)
{
	const double theta = ZIPF_EXPONENT, n = (double)b->n;
	double zetan = 0, alpha = 1 / (1 - theta), eta;

	for (uint64_t i = 1; i <= b->n; i++)
		zetan += pow(1.0 / (double)i, theta);
	eta = (1 - pow(2.0 / n, 1 - theta)) / (1 - (1 + pow(0.5, theta)) / zetan);
	for (unsigned i = 0; i < OPS; i++) {
		double u = (double)(next_random(b) >> 11) / 9007199254740992.0, uz = u * zetan;
		uint64_t rank;

		if (uz < 1)
			rank = 0;
		else if (uz < 1 + pow(0.5, theta))
			rank = 1;
		else
			rank = (uint64_t)(n * pow(eta * u - eta + 1, alpha));
		b->order[i] = (uint32_t)(rank * 0x9e3779b97f4a7c15ull % b->n);
	}
}

/* ---- what is measured ------------------------------------------------------------------------------- */

static void keep_best(double *best, double start, unsigned n)
{
	double ns = (now_ns() - start) / n;

	if (!*best || ns < *best)
		*best = ns;
}

static double lookups(struct bench *b)
{
	double best = 0;

	for (unsigned at = 0; at < OPS; at += BATCH) {
		double start = now_ns();

		for (unsigned i = at; i < at + BATCH; i++) {
			struct um_shadow want = nth(b, b->order[i]), got;

			if (!um_shadow_find(b->page, want.ino, want.block, &got))
				die("a shadow is not there", ENOENT);
			b->sum += got.lba;
		}
		keep_best(&best, start, BATCH);
	}
	return best;
}

/* One random cycle through as many bytes as the table has, in pages like the table's. */
static double chase(struct bench *b, uint64_t bytes)
{
	uint64_t lines = bytes / 64, at = 0;
	uint64_t(*line)[8] = mmap(NULL, lines * 64, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	double best = 0;

	if (line == MAP_FAILED)
		die("memory", errno);
	madvise(line, lines * 64, MADV_HUGEPAGE);
	/* Sattolo's algorithm. */
	for (uint64_t i = 0; i < lines; i++)
		line[i][0] = i;
	for (uint64_t i = lines - 1; i; i--) {
		uint64_t j = next_random(b) % i, t = line[i][0];

		line[i][0] = line[j][0];
		line[j][0] = t;
	}
	for (unsigned r = 0; r < OPS / BATCH; r++) {
		double start = now_ns();

		for (unsigned i = 0; i < BATCH; i++)
			at = line[at][0];
		keep_best(&best, start, BATCH);
	}
	b->sum += at;
	munmap(line, lines * 64);
	return best;
}

/* Tosses single shadows at random places and makes them again; some are drawn twice, which is a
 * miss. */
static void change(struct bench *b, double *out_toss, double *out_insert)
{
	*out_toss = *out_insert = 0;
	for (unsigned at = 0; at < OPS; at += BATCH) {
		double start = now_ns();
		uint64_t gone = 0;

		for (unsigned i = at; i < at + BATCH; i++) {
			struct um_shadow s = nth(b, b->order[i]);

			gone += um_shadow_toss(b->page, s.ino, s.block, 1, NULL, NULL);
		}
		keep_best(out_toss, start, BATCH);
		if (gone < BATCH / 2)
			die("tosses", EINVAL);
		start = now_ns();
		for (unsigned i = at; i < at + BATCH; i++)
			add_nth(b, b->order[i]);
		keep_best(out_insert, start, BATCH);
	}
}

/* ---- the tree ------------------------------------------------------------------------------------------ */

#define POOL_SIZE (4096ull << 20)
#define TREE_BLOCKS 200000u /* extents of one block each */

static uint64_t make_fragmented(struct umbra_fs *fs)
{
	struct umbra_cred cred = {.umask = 022};
	struct umbra_attr attr;
	char block[UM_BLOCK_SIZE] = {1};
	int err = umbra_mknod(fs, 1, "f", S_IFREG | 0644, 0, &cred, &attr);

	for (unsigned i = 0; !err && i < TREE_BLOCKS; i++)
		if (umbra_write(fs, attr.st.st_ino, block, sizeof(block),
			    (uint64_t)i * 2 * UM_BLOCK_SIZE, 0, NULL) != sizeof(block))
			err = -EIO;
	if (err)
		die("file", err);
	return attr.st.st_ino;
}

/* What a shadow's lookup would stand for: the inode's record and the way to the extent. */
static double walk(struct bench *b, struct umbra_fs *fs, uint64_t ino, unsigned blocks)
{
	double best = 0;

	for (unsigned r = 0; r < 20; r++) {
		double start = now_ns();
		unsigned n = BATCH / 5;

		for (unsigned i = 0; i < n; i++) {
			struct um_inode inode;
			struct um_tree tree;
			struct um_run run;
			unsigned got;
			int err;

			um_log_read_lock(fs->log);
			err = um_inode_load(um_fs_src(fs), ino, &inode);
			um_inode_tree(&inode, UM_FORK_DATA, &tree);
			if (!err)
				err = um_runs_get(um_fs_src(fs), &tree,
					2 * (next_random(b) % blocks), 1, 0, &run, 1, &got);
			um_log_read_unlock(fs->log);
			if (err || !run.lba)
				die("tree", err);
			b->sum += run.lba;
		}
		keep_best(&best, start, n);
	}
	return best;
}

static void measure_walk(struct bench *b, struct figures *f)
{
	struct umbra_mkfs_options mkfs = {0};
	struct umbra_options opt = {.shadow_mem = UMBRA_SHADOW_NONE};
	struct umbra_fs *fs;
	void *base = mmap(NULL, POOL_SIZE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t ino;
	int err = base == MAP_FAILED ? -errno : umbra_mkfs_image(base, POOL_SIZE, &mkfs);

	if (!err)
		err = umbra_open_image(base, POOL_SIZE, &opt, &fs);
	if (err)
		die("pool", err);
	ino = make_fragmented(fs);
	f->walk = walk(b, fs, ino, TREE_BLOCKS);
	f->walk_cached = walk(b, fs, ino, 100);
	umbra_abandon(fs);
	munmap(base, POOL_SIZE);
}

/* ---- all ------------------------------------------------------------------------------------------------- */

static void fill(struct bench *b, struct figures *f)
{
	struct um_page_stats stats;
	/* What a shadow costs is asked for as the bound: 48 bytes each, and what does not depend on
	 * them. */
	int err = um_page_open(b->n * 48 + (1u << 20), &b->page);

	if (err)
		die("table", err);
	for (uint64_t i = 0; i < b->n; i++)
		add_nth(b, i);
	um_page_stats(b->page, &stats);
	if (stats.shadows != b->n)
		die("not all shadows are held", ENOSPC);
	f->held = stats.shadows;
	f->masters = stats.masters;
	f->footprint = stats.bytes;
	f->bytes = (double)stats.bytes / (double)stats.shadows;
}

static void print(const struct figures *f, bool json)
{
	if (json) {
		printf("{\"shadows\": %" PRIu64 ", \"masters\": %" PRIu64
		       ", \"bytes_per_shadow\": %.2f, \"chase_ns\": %.1f, \"uniform_ns\": %.1f, "
		       "\"zipf_ns\": %.1f, \"insert_ns\": %.1f, \"toss_ns\": %.1f, "
		       "\"walk_ns\": %.1f, \"walk_cached_ns\": %.1f}\n",
			f->held, f->masters, f->bytes, f->chase, f->uniform, f->zipf, f->insert,
			f->toss, f->walk, f->walk_cached);
		return;
	}
	printf("shadows held         %12" PRIu64 "\n", f->held);
	printf("masters              %12" PRIu64 "\n", f->masters);
	printf("bytes a shadow       %12.2f   (target 48)\n", f->bytes);
	printf("pointer chase        %12.1f ns over the same %" PRIu64 " MiB\n", f->chase,
		f->footprint >> 20);
	printf("lookup, uniform      %12.1f ns = %.2f chases (target 4)\n", f->uniform,
		f->uniform / f->chase);
	printf("lookup, zipf         %12.1f ns = %.2f chases (target 4)\n", f->zipf,
		f->zipf / f->chase);
	printf("insert               %12.1f ns = %.2f lookups (target 3)\n", f->insert,
		f->insert / f->uniform);
	printf("toss                 %12.1f ns = %.2f lookups (target 3)\n", f->toss,
		f->toss / f->uniform);
	printf("tree walk            %12.1f ns, %u extents at random\n", f->walk, TREE_BLOCKS);
	printf("tree walk, cached    %12.1f ns, 100 extents of the same file\n", f->walk_cached);
}

int main(int argc, char **argv)
{
	struct bench b = {.n = 10000000, .sharers = 8, .random = 88172645463325252ull};
	struct figures f = {0};
	bool json = false;
	int opt;

	while ((opt = getopt(argc, argv, "n:s:j")) != -1) {
		if (opt == 'n')
			b.n = strtoull(optarg, NULL, 10);
		else if (opt == 's')
			b.sharers = strtoull(optarg, NULL, 10);
		else if (opt == 'j')
			json = true;
		else
			return 2;
	}
	if (!b.n || b.n > UINT32_MAX || !b.sharers) {
		fprintf(stderr, "page_bench: impossible number\n");
		return 2;
	}
	b.order = malloc(OPS * sizeof(*b.order));
	if (!b.order)
		die("memory", ENOMEM);
	fill(&b, &f);
	f.chase = chase(&b, f.footprint);
	order_uniform(&b);
	f.uniform = lookups(&b);
	change(&b, &f.toss, &f.insert);
	order_zipf(&b);
	f.zipf = lookups(&b);
	um_page_close(b.page);
	measure_walk(&b, &f);
	print(&f, json);
	free(b.order);
	return b.sum == 1; /* used, so computed */
}
