/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The scrub: reads everything in use, so that failures are found while there is another copy. A
 * thread at the lowest priority, in steps that hold the read lock for some dozens of nodes; what it
 * finds is handled like all bad blocks (failure.c). Its position is stored in the pool root from
 * time to time, so that a later mount can continue.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "fs/data.h"
#include "fs/failure.h"

#define STEP_INODES 32u
#define STEP_BLOCKS 256u
#define SAVE_SECONDS 10
#define SLICE_NSEC 5000000 /* maximum length of one sleep */

enum phase { TABLES, INODES, BLOCKS, DATA, PARITY, PHASES };

struct um_scrub {
	struct umbra_fs *fs;
	pthread_t thread;
	pthread_mutex_t lock; /* protects what follows */
	bool running, stop;   /* the thread exists; it is to end */
	struct umbra_scrub now;
	/* Used by the thread only. */
	enum phase phase;
	uint64_t pos, bytes, inodes;
	uint8_t *
		seen; /* bitmap of blocks whose checksums were verified; NULL: verify all each time */
	struct timespec began, saved;
};

/* ---- looking ------------------------------------------------------------------------------------- */

static void add_bad(struct um_scrub *s, uint64_t n)
{
	pthread_mutex_lock(&s->lock);
	s->now.bad += n;
	pthread_mutex_unlock(&s->lock);
}

static void check_block(struct um_scrub *s, struct um_ptr ptr, enum um_kind kind)
{
	unsigned bad = um_block_scrub(s->fs->pool, ptr, kind);

	s->bytes += (ptr.mirror ? 2 : 1) * UM_BLOCK_SIZE;
	if (bad)
		add_bad(s, bad);
}

struct tree_scrub {
	struct um_scrub *s;
	enum um_kind kind;
};

/* A node that clones share is checked once per clone: by then it is in the processor's cache. */
static int check_node(void *arg, struct um_ptr ptr, unsigned level)
{
	struct tree_scrub *t = arg;

	(void)level;
	check_block(t->s, ptr, t->kind);
	return 0;
}

static void check_tree(
	struct um_scrub *s, const struct um_tree_type *type, const struct um_root *root)
{
	struct um_tree tree = {.type = type, .root = *root};
	struct tree_scrub t = {s, type->kind};

	if (root->format != UM_ROOT_NODE)
		return; /* in the record, or empty */
	um_tree_nodes(um_fs_src(s->fs), &tree, check_node, &t);
}

/* Queues a block that the failure code can rewrite on its own. */
static void found_wrong(struct um_scrub *s, um_lba_t lba)
{
	um_trouble_add(s->fs->pool, &(struct um_trouble){.lba = lba, .what = UM_TROUBLE_WRONG});
	add_bad(s, 1);
}

/* The superblock, or a backup: all are identical. */
static void check_super(struct um_scrub *s, um_lba_t lba)
{
	struct um_pool *pool = s->fs->pool;
	bool right;

	if (um_pool_lost(pool, lba, 1))
		return;
	s->bytes += UM_BLOCK_SIZE;
	um_guard_check(); /* a mark left by an earlier load is not about this block */
	right = !um_block_verify(pool, um_pool_ptr(pool, lba), 0, UM_KIND_SUPER, NULL);
	if (!um_guard_check() && !right)
		found_wrong(s, lba);
}

static void check_cover(struct um_scrub *s, uint32_t ag)
{
	struct um_pool *pool = s->fs->pool;
	uint64_t first = um_ag_first(&pool->super, ag);

	for (uint64_t i = 0; um_has_parity(pool) && i < um_ag_chunks(pool, ag);
		i += UM_COVER_CHUNKS) {
		struct um_ptr ptr = um_cover_ptr(pool, first + i);
		struct um_group group;

		um_group_layout(&pool->super, ag, &group);
		if (ptr.lba && i < group.first + group.data)
			check_block(s, ptr, UM_KIND_COVER);
	}
}

/* Words, counts and checksums of one group; with the first group also the pool root and the pool's
 * own trees. */
static void check_group(struct um_scrub *s, uint32_t ag)
{
	struct um_pool *pool = s->fs->pool;
	const void *words, *sums = NULL;
	struct um_tree tree;

	check_super(s, um_ag_first(&pool->super, ag) * UM_CHUNK_BLOCKS);
	if (!ag)
		check_super(s, um_super_second(&pool->super));
	check_cover(s, ag);
	check_block(s, um_ag_ptr(pool, ag), UM_KIND_AG);
	if (um_has_csum(pool)) {
		check_block(s, um_csum_ag_ptr(pool, ag), UM_KIND_CSUM_AG);
		if (um_block_get(pool, um_csum_ag_ptr(pool, ag), UM_KIND_CSUM_AG, &sums))
			sums = NULL;
	}
	if (um_block_get(pool, um_ag_ptr(pool, ag), UM_KIND_AG, &words))
		return;
	for (uint32_t i = 0; i < um_ag_chunks(pool, ag); i++) {
		uint64_t chunk = um_ag_first(&pool->super, ag) + i;

		if (UM_WORD_STATE(((const struct um_ag *)words)->word[i]) == UM_CHUNK_MIXED)
			check_block(s, um_refs_ptr(pool, chunk), UM_KIND_REF);
		if (sums && ((const struct um_csum_ag *)sums)->valid[i / 64] >> (i % 64) & 1)
			check_block(s, um_csums_ptr(pool, chunk), UM_KIND_CSUMS);
	}
	if (ag)
		return;
	check_block(s, pool->super.root, UM_KIND_ROOT);
	for (int which = UM_ROOT_INODES; which <= UM_ROOT_EVENTS; which++)
		if (!um_root_tree(um_fs_src(s->fs), (enum um_root_which)which, &tree))
			check_tree(s, tree.type, &tree.root);
}

struct inode_scrub {
	struct um_scrub *s;
	unsigned left;
	um_ino_t ino; /* DATA: the file found */
};

static int check_inode(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct inode_scrub *i = arg;
	struct um_inode_core core;

	if (!i->left--)
		return 1;
	i->s->pos = key + 1;
	i->s->inodes++;
	if (len < sizeof(core))
		return 0;
	memcpy(&core, val, sizeof(core));
	if (S_ISREG(core.mode))
		check_tree(i->s, &um_extents_type, &core.data);
	else if (S_ISDIR(core.mode))
		check_tree(i->s, &um_dir_type, &core.data);
	check_tree(i->s, &um_xattr_type, &core.xattr);
	return 0;
}

/* Calls fn for inodes from the position on. 0: there are no more. */
static int each_inode(struct um_scrub *s, struct inode_scrub *i, um_tree_visit_fn *fn)
{
	struct um_tree tree;
	int ret = um_root_tree(um_fs_src(s->fs), UM_ROOT_INODES, &tree);

	if (!ret)
		ret = um_tree_walk(um_fs_src(s->fs), &tree, s->pos, UINT64_MAX, fn, i);
	return ret < 0 ? 0 : ret;
}

/* Reads blocks in use, whatever they are: reading free ones would only allocate space in a file
 * with holes. */
static void touch_blocks(struct um_scrub *s)
{
	struct umbra_fs *fs = s->fs;
	struct um_pool *pool = fs->pool;
	um_lba_t end = s->pos + STEP_BLOCKS < pool->nblocks ? s->pos + STEP_BLOCKS : pool->nblocks;

	for (; s->pos < end; s->pos++) {
		uint32_t count = 1, same;

		if (um_chunk_usable(&pool->super, um_chunk_of(s->pos))) {
			um_log_read_lock(fs->log);
			if (um_ref_count(um_fs_src(fs), s->pos, 1, &count, &same))
				count = 0;
			um_log_read_unlock(fs->log);
		}
		if (!count || count == UM_REF_RETIRED || um_pool_lost(pool, s->pos, 1))
			continue;
		um_guard_check();
		s->bytes += UM_BLOCK_SIZE;
		if (um_guard_read(um_pool_ptr(pool, s->pos), UM_BLOCK_SIZE))
			add_bad(s, 1);
	}
}

/* ---- parity ----------------------------------------------------------------------------------------- */

/* Is a block that parity covers known to be right, or not known to be wrong? Without data checksums
 * that cannot be determined: then parity is adapted to the data, as fsck does. */
static bool may_trust(struct um_scrub *s, um_lba_t lba)
{
	struct um_pool *pool = s->fs->pool;
	const struct um_block_hdr *hdr = um_pool_ptr(pool, lba);
	uint32_t value;

	if (!um_has_csum(pool))
		return true;
	um_guard_check();
	if (!um_csum_get(um_fs_src(s->fs), lba, 1, &value) && um_data_csum(hdr) == value)
		return !um_guard_check();
	return hdr->kind < UM_KIND_MAX && !um_block_verify(pool, hdr, lba, hdr->kind, NULL) &&
	       !um_guard_check();
}

/* Checks the parity of the stripes of STEP_BLOCKS blocks. */
static void check_parity(struct um_scrub *s)
{
	struct um_pool *pool = s->fs->pool;
	um_lba_t end = s->pos + STEP_BLOCKS < pool->nblocks ? s->pos + STEP_BLOCKS : pool->nblocks;
	uint8_t any[UM_BLOCK_SIZE];

	um_log_read_lock(s->fs->log);
	for (; s->pos < end; s->pos += UM_PARITY_WIDTH) {
		um_lba_t at;
		unsigned i;

		if (!um_chunk_usable(&pool->super, um_chunk_of(s->pos)))
			continue;
		at = um_parity_lba(pool, s->pos);
		s->bytes += UM_BLOCK_SIZE;
		if (um_parity_right(um_fs_src(s->fs), at))
			continue;
		/* If a block of the stripe is wrong, parity is what repairs it. */
		for (i = 0; i < UM_PARITY_WIDTH; i++)
			if (!um_parity_rebuild(um_fs_src(s->fs), s->pos + i, any) &&
				!may_trust(s, s->pos + i))
				break;
		if (i == UM_PARITY_WIDTH)
			found_wrong(s, at);
	}
	um_log_read_unlock(s->fs->log);
}

/* ---- checksums of file data ------------------------------------------------------------------------- */

static int find_file(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct inode_scrub *i = arg;
	struct um_inode_core core;

	i->s->pos = key + 1;
	i->s->inodes++;
	if (len < sizeof(core))
		return 0;
	memcpy(&core, val, sizeof(core));
	if (!S_ISREG(core.mode) || core.data.format < UM_ROOT_EMBED)
		return 0;
	i->ino = key;
	return 1;
}

static bool seen(struct um_scrub *s, um_lba_t lba)
{
	uint8_t bit = (uint8_t)(1u << lba % 8);
	bool was = s->seen && s->seen[lba / 8] & bit;

	if (s->seen)
		s->seen[lba / 8] |= bit;
	return was;
}

static void check_run(struct um_scrub *s, const struct um_run *run)
{
	for (uint64_t i = 0; i < run->len; i++) {
		if (seen(s, run->lba + i) || um_pool_lost(s->fs->pool, run->lba + i, 1))
			continue;
		s->bytes += UM_BLOCK_SIZE;
		if (um_data_verify(s->fs, run->lba + i, 1, NULL))
			add_bad(s, 1);
	}
}

/* The file may change meanwhile; an epoch keeps the blocks that were found. */
static void check_file(struct um_scrub *s, um_ino_t ino)
{
	struct umbra_fs *fs = s->fs;
	uint64_t first = 0, stop = 1;

	while (first < stop) {
		struct um_run runs[STEP_INODES];
		struct um_inode inode;
		struct um_tree tree;
		unsigned n = 0;
		int ret;

		umbra_read_begin(fs);
		um_log_read_lock(fs->log);
		ret = um_inode_load(um_fs_src(fs), ino, &inode);
		stop = ret ? 0 : um_blocks_of(inode.core.size);
		if (!ret && first < stop) {
			um_inode_tree(&inode, UM_FORK_DATA, &tree);
			ret = um_runs_get(um_fs_src(fs), &tree, first, stop - first, 0, runs,
				STEP_INODES, &n);
		}
		um_log_read_unlock(fs->log);
		for (unsigned i = 0; !ret && i < n; i++)
			if (um_run_data(&runs[i]))
				check_run(s, &runs[i]);
		umbra_read_end(fs);
		if (ret || !n)
			return;
		first = runs[n - 1].block + runs[n - 1].len;
	}
}

/* ---- one step after the other --------------------------------------------------------------------------- */

/* False: the phase is complete. */
static bool phase_step(struct um_scrub *s)
{
	struct inode_scrub i = {.s = s, .left = STEP_INODES};
	struct umbra_fs *fs = s->fs;
	int more;

	switch (s->phase) {
	case TABLES:
		if (!s->pos)
			um_backups_refresh(fs);
		um_log_read_lock(fs->log);
		check_group(s, (uint32_t)s->pos++);
		um_log_read_unlock(fs->log);
		return s->pos < fs->pool->nags;
	case INODES:
		um_log_read_lock(fs->log);
		more = each_inode(s, &i, check_inode);
		um_log_read_unlock(fs->log);
		return more;
	case BLOCKS:
		touch_blocks(s);
		return s->pos < fs->pool->nblocks;
	case DATA:
		if (!um_has_csum(fs->pool))
			return false;
		um_log_read_lock(fs->log);
		more = each_inode(s, &i, find_file);
		um_log_read_unlock(fs->log);
		if (i.ino)
			check_file(s, i.ino);
		return more;
	case PARITY:
		if (!um_has_parity(fs->pool))
			return false;
		check_parity(s);
		return s->pos < fs->pool->nblocks;
	case PHASES:
		break;
	}
	return false;
}

/* Progress in thousandths, by the amount of work in each phase. */
static unsigned progress(struct um_scrub *s, uint64_t ninodes)
{
	const uint64_t all[PHASES] = {s->fs->pool->nags, ninodes + 1, s->fs->pool->nblocks / 16,
		um_has_csum(s->fs->pool) ? ninodes + s->fs->pool->nblocks / 8 : 0,
		um_has_parity(s->fs->pool) ? s->fs->pool->nblocks / 16 : 0};
	uint64_t done = 0, total = 0, part = 0;

	for (unsigned i = 0; i < PHASES; i++) {
		total += all[i];
		done += i < (unsigned)s->phase ? all[i] : 0;
	}
	if (s->phase == TABLES)
		part = s->pos;
	else if (s->phase == BLOCKS || s->phase == PARITY)
		part = s->pos / 16;
	else if (s->phase < PHASES)
		part = s->inodes < ninodes ? s->inodes * all[s->phase] / (ninodes + 1)
					   : all[s->phase];
	done += part;
	return done < total ? (unsigned)(done * 1000 / total) : 1000;
}

static double since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

static void save(struct um_scrub *s)
{
	struct um_pool_root *root;
	struct um_txn *txn;
	int ret = um_txn_begin(s->fs->log, UM_TXN_RESERVE, &txn);

	clock_gettime(CLOCK_MONOTONIC, &s->saved);
	if (ret)
		return;
	ret = um_root_edit(txn, &root);
	if (!ret) {
		root->scrub_phase = s->phase < PHASES ? (um_le32_t)s->phase : 0;
		root->scrub_pos = s->phase < PHASES ? s->pos : 0;
		if (s->phase == PHASES)
			root->scrub_sec = (um_le64_t)time(NULL);
	}
	um_txn_end(txn, ret);
}

/* Publishes the progress, and sleeps according to the rate. True: it is to end. */
static bool publish(struct um_scrub *s)
{
	const struct um_pool_root *root;
	uint64_t ninodes = 0;
	double ahead;
	bool stop;

	um_log_read_lock(s->fs->log);
	if (!um_root_get(um_fs_src(s->fs), &root))
		ninodes = root->ninodes;
	um_log_read_unlock(s->fs->log);
	pthread_mutex_lock(&s->lock);
	s->now.bytes = s->bytes;
	s->now.permille = progress(s, ninodes);
	s->now.seconds = since(&s->began);
	ahead = s->now.rate ? (double)s->bytes / (double)s->now.rate - s->now.seconds : 0;
	stop = s->stop;
	pthread_mutex_unlock(&s->lock);
	while (!stop && ahead > 0) {
		struct timespec nap = {0, SLICE_NSEC};

		nanosleep(&nap, NULL);
		ahead -= SLICE_NSEC / 1e9;
		pthread_mutex_lock(&s->lock);
		stop = s->stop;
		pthread_mutex_unlock(&s->lock);
	}
	return stop;
}

static void *scrub_main(void *arg)
{
	struct um_scrub *s = arg;
	bool stop = false;

	setpriority(PRIO_PROCESS, 0, 19); /* of this thread: Linux */
	while (!stop && s->phase < PHASES && !um_fs_alive(s->fs)) {
		if (!phase_step(s)) {
			s->phase++;
			s->pos = s->inodes = 0;
		}
		if (atomic_load(&s->fs->pool->nrepair) || um_trouble_any(s->fs->pool))
			umbra_failures_settle(s->fs);
		if (since(&s->saved) > SAVE_SECONDS)
			save(s);
		stop = publish(s);
	}
	save(s);
	pthread_mutex_lock(&s->lock);
	s->now.state = s->phase == PHASES ? UMBRA_SCRUB_DONE : UMBRA_SCRUB_PAUSED;
	pthread_mutex_unlock(&s->lock);
	free(s->seen);
	s->seen = NULL;
	return NULL;
}

/* ---- for callers ------------------------------------------------------------------------------------------ */

static void end_thread(struct um_scrub *s)
{
	if (!s->running)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	s->running = s->stop = false;
}

static void load_position(struct um_scrub *s)
{
	const struct um_pool_root *root;

	um_log_read_lock(s->fs->log);
	if (!um_root_get(um_fs_src(s->fs), &root)) {
		s->phase = root->scrub_phase < PHASES ? (enum phase)root->scrub_phase : TABLES;
		s->pos = root->scrub_pos;
	}
	um_log_read_unlock(s->fs->log);
	if (s->phase == TABLES && s->pos >= s->fs->pool->nags)
		s->pos = 0;
}

static int start(struct um_scrub *s, uint64_t rate)
{
	end_thread(s);
	load_position(s);
	s->bytes = s->inodes = 0;
	memset(&s->now, 0, sizeof(s->now));
	s->now.state = UMBRA_SCRUB_RUNNING;
	s->now.rate = rate;
	if (um_has_csum(s->fs->pool))
		s->seen = calloc(1, s->fs->pool->nblocks / 8 + 1);
	clock_gettime(CLOCK_MONOTONIC, &s->began);
	s->saved = s->began;
	if (pthread_create(&s->thread, NULL, scrub_main, s))
		return -EAGAIN;
	s->running = true;
	return 0;
}

int umbra_scrub(struct umbra_fs *fs, enum umbra_scrub_op op, uint64_t rate, struct umbra_scrub *out)
{
	struct um_scrub *s = fs->scrub;
	int ret = um_fs_alive(fs);
	bool running;

	if (!ret && (fs->readonly || !s) && op != UMBRA_SCRUB_STATUS)
		ret = -EROFS;
	if (ret || !s) {
		memset(out, 0, sizeof(*out));
		return ret;
	}
	pthread_mutex_lock(&fs->scrub_lock);
	running = s->running && s->now.state == UMBRA_SCRUB_RUNNING;
	if (op == UMBRA_SCRUB_START)
		ret = running ? -EALREADY : start(s, rate);
	else if (op == UMBRA_SCRUB_PAUSE || op == UMBRA_SCRUB_CANCEL)
		end_thread(s);
	if (op == UMBRA_SCRUB_CANCEL) {
		s->phase = TABLES;
		s->pos = 0;
		save(s);
		s->now.state = UMBRA_SCRUB_NONE;
	}
	pthread_mutex_lock(&s->lock);
	*out = s->now;
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&fs->scrub_lock);
	return ret;
}

int um_scrub_open(struct umbra_fs *fs)
{
	struct um_scrub *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->fs = fs;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&fs->scrub_lock, NULL);
	fs->scrub = s;
	return 0;
}

void um_scrub_close(struct umbra_fs *fs)
{
	struct um_scrub *s = fs->scrub;

	if (!s)
		return;
	end_thread(s);
	fs->scrub = NULL;
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&fs->scrub_lock);
	free(s);
}
