/* SPDX-License-Identifier: BSD-3-Clause */
/* Masters and shadows: the table against a plain array, threads, and the effects of reads, writes
 * and removals of clones; owners and names of a block. */
#include <pthread.h>

#include "datakit.h"
#include "fs/shadows.h"
#include "page/page.h"

#define CAP (8u << 20)

/* ---- the table against an array ------------------------------------------------------------------- */

enum { FILES = 6, BLOCKS = 96 };

struct model {
	struct um_page *page;
	um_lba_t lba[FILES][BLOCKS]; /* 0: no shadow */
	uint64_t random;
};

static uint64_t rnd(struct model *m, uint64_t n)
{
	m->random ^= m->random << 13, m->random ^= m->random >> 7, m->random ^= m->random << 17;
	return m->random % n;
}

static uint64_t shadows_of(const struct um_page *page)
{
	struct um_page_stats stats;

	um_page_stats(page, &stats);
	return stats.shadows;
}

/* Every block of every file is found just as the array has it; by LBA too. */
static void model_verify(struct model *m, bool exact)
{
	struct um_page_stats stats;
	uint64_t masters = 0;

	for (unsigned f = 0; f < FILES; f++) {
		for (unsigned b = 0; b < BLOCKS; b++) {
			um_lba_t want = m->lba[f][b];
			struct um_shadow s;
			bool found = um_shadow_find(m->page, 100 + f, b, &s);

			if (exact)
				assert_int_equal(found, want != 0);
			if (!found)
				continue;
			assert_int_equal(s.ino, 100 + f);
			assert_true(s.block <= b && b < s.block + s.len);
			assert_int_equal(s.lba + (b - s.block), want);
		}
	}
	if (!exact)
		return;
	for (um_lba_t lba = 1000; lba < 1000 + 4 * BLOCKS; lba++) {
		uint64_t want = 0;

		for (unsigned f = 0; f < FILES; f++)
			for (unsigned b = 0; b < BLOCKS; b++)
				want += m->lba[f][b] == lba;
		assert_int_equal(um_master_count(m->page, lba), want);
		masters += want != 0;
	}
	um_page_stats(m->page, &stats);
	assert_true(stats.masters <= masters);
	assert_int_equal(stats.masters == 0, stats.shadows == 0);
}

static void model_step(struct model *m)
{
	unsigned f = (unsigned)rnd(m, FILES), at = (unsigned)rnd(m, BLOCKS);
	unsigned n = 1 + (unsigned)rnd(m, BLOCKS - at);
	struct um_shadow s = {.ino = 100 + f, .block = at, .len = n};

	switch (rnd(m, 8)) {
	case 0:
		um_shadow_toss(m->page, s.ino, 0, UINT64_MAX, NULL, NULL);
		memset(m->lba[f], 0, sizeof(m->lba[f]));
		return;
	case 1:
		um_shadow_toss(m->page, s.ino, at, UINT64_MAX, NULL, NULL);
		memset(&m->lba[f][at], 0, (BLOCKS - at) * sizeof(um_lba_t));
		return;
	case 2:
	case 3:
		um_shadow_toss(m->page, s.ino, at, n, NULL, NULL);
		memset(&m->lba[f][at], 0, n * sizeof(um_lba_t));
		return;
	default:
		/* Files share at equal or at other offsets; what does not fit the old goes. */
		s.lba = 1000 + at + rnd(m, 3) * 37;
		um_shadow_toss(m->page, s.ino, at, n, NULL, NULL);
		um_shadow_add(m->page, &s, um_shadow_seq(m->page, s.ino));
		for (unsigned i = 0; i < n; i++)
			m->lba[f][at + i] = s.lba + i;
	}
}

static void table_is_what_a_plain_array_says(void **state)
{
	struct model m = {.random = 42};

	(void)state;
	ok(um_page_open(UM_PAGE_MEM_MIN, &m.page));
	for (unsigned i = 0; i < 20000; i++) {
		model_step(&m);
		if (i % 100 == 0)
			model_verify(&m, true);
	}
	for (unsigned f = 0; f < FILES; f++)
		um_shadow_toss(m.page, 100 + f, 0, UINT64_MAX, NULL, NULL);
	assert_int_equal(shadows_of(m.page), 0);
	um_page_close(m.page);
}

static void pieces_of_a_window_join_and_come_in_order(void **state)
{
	struct um_shadow s = {.ino = 7, .block = 33, .lba = 5001, .len = 1}, got[4];
	struct um_page *page;

	(void)state;
	ok(um_page_open(UM_PAGE_MEM_MIN, &page));
	for (unsigned i = 0; i < 15; i++) {
		/* 33, 47, 34, 46 ...: from both ends */
		s.block = i % 2 ? 47 - i / 2 : 33 + i / 2;
		s.lba = s.block + 4968;
		um_shadow_add(page, &s, um_shadow_seq(page, 7));
	}
	assert_int_equal(um_shadow_list(page, 7, 0, 1000, got, 4), 1);
	assert_int_equal(got[0].block, 33);
	assert_int_equal(got[0].len, 15);
	assert_int_equal(got[0].lba, 5001);
	um_shadow_toss(page, 7, 40, 2, NULL, NULL);
	assert_int_equal(um_shadow_list(page, 7, 0, 1000, got, 4), 2);
	assert_int_equal(got[0].len, 7);
	assert_int_equal(got[1].block, 42);
	assert_int_equal(um_shadow_list(page, 7, 41, 1, got, 4), 0);
	um_page_close(page);
}

static void full_table_evicts_and_stays_right(void **state)
{
	struct um_page_stats stats;
	struct um_page *page;
	struct um_shadow s, hot = {.ino = 3, .block = 16, .lba = 77, .len = 4};
	uint64_t found = 0, n;

	(void)state;
	ok(um_page_open(UM_PAGE_MEM_MIN, &page));
	um_page_stats(page, &stats);
	n = 3 * stats.capacity;
	um_shadow_add(page, &hot, um_shadow_seq(page, 3));
	for (uint64_t i = 0; i < n; i++) {
		s = (struct um_shadow){1000 + i % 100, i * 16, 1 << 20 | i * 3, 1};
		um_shadow_add(page, &s, um_shadow_seq(page, s.ino));
		assert_true(um_shadow_find(page, 3, 17, &s)); /* what is used stays */
	}
	um_page_stats(page, &stats);
	assert_int_equal(stats.shadows, stats.capacity);
	assert_int_equal(stats.evictions, n + 1 - stats.capacity);
	assert_true(stats.bytes <= UM_PAGE_MEM_MIN);
	for (uint64_t i = 0; i < n; i++) {
		if (!um_shadow_find(page, 1000 + i % 100, i * 16, &s))
			continue;
		found++;
		assert_int_equal(s.lba, 1 << 20 | i * 3);
	}
	assert_int_equal(found, stats.capacity - 1);
	for (uint64_t i = 0; i < 100; i++)
		um_shadow_toss(page, 1000 + i, 0, UINT64_MAX, NULL, NULL);
	assert_int_equal(shadows_of(page), 1);
	um_page_close(page);
}

static void shadow_of_an_old_mapping_is_not_made(void **state)
{
	struct um_shadow s = {.ino = 9, .block = 1, .lba = 500, .len = 3};
	struct um_page *page;
	uint64_t seq;

	(void)state;
	ok(um_page_open(UM_PAGE_MEM_MIN, &page));
	seq = um_shadow_seq(page, 9);
	um_shadow_toss(page, 9, 100, 1, NULL, NULL); /* a change anywhere in the file */
	um_shadow_add(page, &s, seq);
	assert_int_equal(shadows_of(page), 0);
	um_shadow_add(page, &s, um_shadow_seq(page, 9));
	assert_int_equal(shadows_of(page), 1);
	um_page_close(page);
	ok(um_page_open(0, &page)); /* without shadows */
	um_shadow_add(page, &s, um_shadow_seq(page, 9));
	assert_false(um_shadow_find(page, 9, 1, &s));
	assert_int_equal(um_master_count(page, 500), 0);
	um_page_close(page);
}

static void master_goes_with_its_last_shadow(void **state)
{
	struct um_shadow s = {.block = 0, .lba = 800, .len = 8}, list[2];
	struct um_page_stats stats;
	struct um_page *page;
	unsigned n = 2;

	(void)state;
	ok(um_page_open(UM_PAGE_MEM_MIN, &page));
	for (s.ino = 20; s.ino < 23; s.ino++)
		um_shadow_add(page, &s, um_shadow_seq(page, s.ino));
	um_page_stats(page, &stats);
	assert_int_equal(stats.masters, 1);
	assert_int_equal(um_master_count(page, 803), 3);
	assert_int_equal(um_shadow_toss(page, 21, 3, 16, list, &n), 1);
	assert_int_equal(n, 1);
	assert_int_equal(list[0].lba, 803);
	assert_int_equal(list[0].len, 5);
	assert_int_equal(um_master_count(page, 803), 2);
	assert_int_equal(um_master_count(page, 802), 3);
	um_shadow_toss(page, 20, 0, 16, NULL, NULL);
	um_shadow_toss(page, 21, 0, 16, NULL, NULL);
	assert_int_equal(um_master_sole(page, 64, list, 1), 1);
	assert_int_equal(list[0].ino, 22);
	um_shadow_toss(page, 22, 0, 16, NULL, NULL);
	um_page_stats(page, &stats);
	assert_int_equal(stats.masters, 0);
	um_page_close(page);
}

/* ---- threads -------------------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 20000 };

struct worker {
	pthread_t thread;
	struct um_page *page;
	uint64_t seed;
	uint64_t *shared; /* a word for each of 8 chunks, under the masters' locks */
};

static void worker_locks(struct worker *w, struct model *m)
{
	uint64_t a = rnd(m, 8), b = rnd(m, 8);
	struct um_hold hold;

	um_hold_init(w->page, &hold);
	um_hold_add(&hold, a * UM_CHUNK_BLOCKS + 5, 3);
	um_hold_add(&hold, b * UM_CHUNK_BLOCKS, UM_CHUNK_BLOCKS);
	um_master_lock(w->page, &hold);
	w->shared[a]++;
	w->shared[b]++;
	if (!rnd(m, 100))
		um_master_moved(w->page);
	um_master_unlock(w->page, &hold);
}

/* LBAs follow from inode and block, so whatever is found can be checked. */
static void *worker_run(void *arg)
{
	struct worker *w = arg;
	struct model m = {.page = w->page, .random = w->seed};
	struct um_shadow out[16];
	uint64_t all;

	for (unsigned i = 0; i < ROUNDS; i++) {
		um_ino_t ino = 50 + rnd(&m, 5);
		uint64_t block = rnd(&m, 400000), seq = um_shadow_seq(w->page, ino);
		struct um_shadow s = {ino, block, 10000 + block, 1 + (uint32_t)rnd(&m, 40)};
		unsigned n;

		switch (rnd(&m, 8)) {
		case 0:
			um_shadow_toss(w->page, ino, block, rnd(&m, 4000), out, &(unsigned){16});
			break;
		case 1:
			if (!rnd(&m, 200))
				um_shadow_toss(w->page, ino, 0, UINT64_MAX, NULL, NULL);
			break;
		case 2:
			n = um_master_shadows(w->page, s.lba, 16, out, 16, &all);
			for (unsigned k = 0; k < n; k++)
				assert_int_equal(out[k].lba, 10000 + out[k].block);
			break;
		case 3:
			worker_locks(w, &m);
			um_master_sole(w->page, 8, out, 4);
			break;
		default:
			um_shadow_add(w->page, &s, seq);
			if (um_shadow_find(w->page, ino, block, &out[0]))
				assert_int_equal(out[0].lba, 10000 + out[0].block);
		}
	}
	return NULL;
}

static void threads_share_the_table(void **state)
{
	struct worker w[THREADS];
	uint64_t shared[8] = {0}, sum = 0;
	struct um_page_stats stats;
	struct um_page *page;

	(void)state;
	ok(um_page_open(UM_PAGE_MEM_MIN, &page)); /* small: evictions happen */
	for (unsigned i = 0; i < THREADS; i++) {
		w[i] = (struct worker){
			.page = page, .seed = 0x9e3779b97f4a7c15ull * (i + 1), .shared = shared};
		ok(pthread_create(&w[i].thread, NULL, worker_run, &w[i]));
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(w[i].thread, NULL);
	for (unsigned i = 0; i < 8; i++)
		sum += shared[i];
	assert_true(sum > 0);
	for (um_ino_t ino = 50; ino < 55; ino++)
		um_shadow_toss(page, ino, 0, UINT64_MAX, NULL, NULL);
	um_page_stats(page, &stats);
	assert_int_equal(stats.shadows, 0);
	assert_int_equal(stats.masters, 0);
	um_page_close(page);
}

/* ---- in a filesystem -------------------------------------------------------------------------------------- */

static uint64_t counter_value;
static const char *counter_name;
static void counter_visit(void *arg, const char *name, uint64_t value)
{
	(void)arg;
	if (!strcmp(name, counter_name))
		counter_value = value;
}
static uint64_t counter(struct kit *k, const char *name)
{
	counter_name = name;
	counter_value = UINT64_MAX;
	umbra_stat(k->fs, counter_visit, NULL);
	return counter_value;
}

static void clones(struct kit *k, struct file *f, unsigned n, uint64_t blocks)
{
	static const char *const names[] = {"f0", "f1", "f2", "f3"};

	kit_open(k, 64, UMBRA_DATA_ATOMIC);
	file_make(k, &f[0], names[0], CAP);
	file_write(k, &f[0], 0, blocks * B, 1);
	for (unsigned i = 1; i < n; i++) {
		file_make(k, &f[i], names[i], CAP);
		ok(umbra_clone(k->fs, f[0].ino, f[i].ino));
		want_bytes(&f[i], 0, f[0].want, blocks * B);
	}
}

static void files_free(struct kit *k, struct file *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		file_verify(k, &f[i]);
		file_free(&f[i]);
	}
	kit_close(k);
}

static void reading_clones_makes_shadows_and_a_write_tosses_its_own(void **state)
{
	struct file f[3];
	struct kit k;
	um_lba_t lba;

	(void)state;
	clones(&k, f, 3, 64);
	assert_int_equal(counter(&k, "shadows"), 0);
	lba = file_lba(&k, &f[0], 20);
	for (unsigned i = 0; i < 3; i++) {
		file_verify(&k, &f[i]);
		assert_int_equal(um_master_count(k.fs->page, lba), i + 1);
	}
	assert_int_equal(counter(&k, "shadows"), 3 * 64 / UM_PAGE_WINDOW);

	file_write(&k, &f[1], 20 * B + 7, 10, 2);
	assert_int_equal(um_master_count(k.fs->page, lba), 2);
	assert_int_equal(um_master_count(k.fs->page, lba + 1), 3);
	assert_false(um_shadow_find(k.fs->page, f[1].ino, 20, &(struct um_shadow){0}));
	file_verify(&k, &f[1]); /* the new block is its own: no shadow of it */
	assert_false(um_shadow_find(k.fs->page, f[1].ino, 20, &(struct um_shadow){0}));

	/* All of them: the last is the only owner, and its shadow goes with the one before. */
	file_write(&k, &f[0], 20 * B, B, 3);
	assert_int_equal(um_master_count(k.fs->page, lba), 0);
	assert_true(um_master_count(k.fs->page, lba + 1) >= 2);
	files_free(&k, f, 3);
}

static void unshared_files_have_no_shadows(void **state)
{
	struct file f;
	struct kit k;

	(void)state;
	clones(&k, &f, 1, 300);
	file_verify(&k, &f);
	assert_int_equal(counter(&k, "shadows"), 0);
	files_free(&k, &f, 1);
}

static void truncate_punch_clone_and_forget_toss(void **state)
{
	struct file f[4];
	struct kit k;
	uint64_t n;

	(void)state;
	clones(&k, f, 4, 64);
	for (unsigned i = 0; i < 4; i++)
		file_verify(&k, &f[i]);
	file_truncate(&k, &f[1], 10 * B + 1);
	assert_true(um_shadow_find(k.fs->page, f[1].ino, 9, &(struct um_shadow){0}));
	for (unsigned b = 10; b < 64; b++)
		assert_false(um_shadow_find(k.fs->page, f[1].ino, b, &(struct um_shadow){0}));
	ok(umbra_fallocate(
		k.fs, f[2].ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8 * B, 16 * B));
	want_bytes(&f[2], 8 * B, NULL, 16 * B);
	assert_true(um_shadow_find(k.fs->page, f[2].ino, 7, &(struct um_shadow){0}));
	assert_false(um_shadow_find(k.fs->page, f[2].ino, 8, &(struct um_shadow){0}));
	assert_false(um_shadow_find(k.fs->page, f[2].ino, 23, &(struct um_shadow){0}));
	assert_true(um_shadow_find(k.fs->page, f[2].ino, 24, &(struct um_shadow){0}));

	ok(umbra_clone_range(k.fs, f[0].ino, 32 * B, 8 * B, f[3].ino, 0));
	want_bytes(&f[3], 0, f[0].want + 32 * B, 8 * B);
	assert_false(um_shadow_find(k.fs->page, f[3].ino, 0, &(struct um_shadow){0}));
	assert_true(um_shadow_find(k.fs->page, f[3].ino, 40, &(struct um_shadow){0}));

	umbra_cache_dropped(k.fs, f[3].ino, 40 * B, 0);
	assert_false(um_shadow_find(k.fs->page, f[3].ino, 40, &(struct um_shadow){0}));
	file_verify(&k, &f[3]);
	n = counter(&k, "shadows");
	umbra_forget(k.fs, f[3].ino, 1);
	assert_true(counter(&k, "shadows") < n);
	assert_int_equal(um_shadow_list(k.fs->page, f[3].ino, 0, 64, &(struct um_shadow){0}, 1), 0);
	files_free(&k, f, 3);
	file_free(&f[3]);
}

/* Writes past the caller's cache, until it need not be dropped any more; how many that took, and
 * how many dropped all. */
static unsigned writes_past(struct kit *k, uint64_t ino, unsigned *out_whole)
{
	struct umbra_cache_old old;
	unsigned n = 0;

	*out_whole = 0;
	for (; umbra_cache_is_old(k->fs, ino, &old); n++) {
		assert_true(n < 1000);
		*out_whole += old.whole;
		if (old.whole)
			umbra_cache_clean(k->fs, ino, old.fills);
	}
	return n;
}

static void a_cache_is_old_after_it_was_filled(void **state)
{
	struct umbra_cache_old old;
	struct file f[2];
	unsigned whole;
	struct kit k;

	(void)state;
	clones(&k, f, 2, 4);
	assert_int_equal(writes_past(&k, f[0].ino, &whole), 0);
	umbra_cache_fills(k.fs, f[0].ino);
	assert_int_equal(writes_past(&k, f[1].ino, &whole), 0);
	assert_int_equal(writes_past(&k, f[0].ino, &whole), 8);
	assert_int_equal(whole, 1);
	assert_int_equal(writes_past(&k, f[0].ino, &whole), 0);

	/* The more may be in it the longer it is kept, and longer when it still grows. */
	for (unsigned i = 0; i < 10; i++)
		umbra_cache_fills(k.fs, f[0].ino);
	for (unsigned i = 0; i < 79; i++) {
		assert_true(umbra_cache_is_old(k.fs, f[0].ino, &old));
		assert_false(old.whole);
	}
	umbra_cache_fills(k.fs, f[0].ino);
	assert_int_equal(writes_past(&k, f[0].ino, &whole), 88);
	assert_int_equal(whole, 1);

	/* Pages that somebody may be writing are not dropped for a write elsewhere. */
	assert_int_equal(umbra_file_open(k.fs, f[0].ino, O_RDWR | O_DIRECT, false), 0);
	assert_int_equal(umbra_file_open(k.fs, f[0].ino, O_WRONLY, false), 0);
	umbra_cache_fills(k.fs, f[0].ino);
	for (unsigned i = 0; i < 100; i++) {
		assert_true(umbra_cache_is_old(k.fs, f[0].ino, &old));
		assert_false(old.whole);
	}
	umbra_file_release(k.fs, f[0].ino, O_WRONLY);
	assert_int_equal(writes_past(&k, f[0].ino, &whole), 1);
	assert_int_equal(whole, 1);
	umbra_file_release(k.fs, f[0].ino, O_RDWR | O_DIRECT);

	/* What came while all was dropped stays old. */
	umbra_cache_fills(k.fs, f[0].ino);
	while (umbra_cache_is_old(k.fs, f[0].ino, &old) && !old.whole)
		;
	umbra_cache_fills(k.fs, f[0].ino);
	umbra_cache_clean(k.fs, f[0].ino, old.fills);
	assert_true(umbra_cache_is_old(k.fs, f[0].ino, &old));

	/* Nor is anything cached of what nobody holds. */
	umbra_forget(k.fs, f[0].ino, 1);
	umbra_cache_fills(k.fs, f[0].ino);
	assert_int_equal(writes_past(&k, f[0].ino, &whole), 0);
	file_free(&f[0]);
	files_free(&k, &f[1], 1);
}

static void removed_clones_leave_no_shadow_behind(void **state)
{
	struct file f[2];
	struct kit k;

	(void)state;
	clones(&k, f, 2, 64);
	file_verify(&k, &f[0]);
	file_verify(&k, &f[1]);
	assert_true(counter(&k, "shadows") > 0);
	ok(umbra_unlink(k.fs, UM_ROOT_INO, "f1"));
	umbra_forget(k.fs, f[1].ino, 1);
	kit_free(&k); /* waits for the space */
	/* f0 owns its blocks alone now, and has no shadows either. */
	assert_int_equal(counter(&k, "shadows"), 0);
	assert_int_equal(counter(&k, "masters"), 0);
	files_free(&k, f, 1);
	file_free(&f[1]);
}

static void dedupe_shares_and_reads_then_shadow(void **state)
{
	struct file a, b;
	uint64_t done;
	struct kit k;
	bool same;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	file_make(&k, &a, "a", CAP);
	file_make(&k, &b, "b", CAP);
	file_write(&k, &a, 0, 32 * B, 5);
	file_write(&k, &b, 0, 32 * B, 5);
	file_write(&k, &b, 32 * B, B, 6);
	file_verify(&k, &b);
	assert_int_equal(counter(&k, "shadows"), 0);
	ok(umbra_dedupe_range(k.fs, a.ino, 0, 32 * B, b.ino, 0, &same, &done));
	assert_true(same);
	file_verify(&k, &a);
	file_verify(&k, &b);
	assert_int_equal(um_master_count(k.fs->page, file_lba(&k, &a, 3)), 2);
	file_free(&a);
	file_free(&b);
	kit_close(&k);
}

/* ---- owners ------------------------------------------------------------------------------------------------- */

struct list {
	unsigned n, stop_at, cached;
	uint64_t ino[64], off[64];
	char name[64][UMBRA_NAME_MAX + 1];
	uint64_t dir[64];
};

static int list_owner(void *arg, uint64_t ino, uint64_t off, bool cached)
{
	struct list *l = arg;

	if (l->n == l->stop_at)
		return 1;
	l->cached += cached;
	l->ino[l->n] = ino;
	l->off[l->n++] = off;
	return 0;
}

static void owners(struct kit *k, um_lba_t lba, unsigned page, struct list *l)
{
	struct umbra_owner_scan scan = {.lba = lba};

	l->n = l->cached = 0;
	do {
		l->stop_at = page ? l->n + page : 64;
		ok(umbra_lba_owners(k->fs, &scan, page ? 1 : 1000, list_owner, l));
	} while (!scan.done);
	assert_false(scan.changed);
	assert_int_equal(scan.damaged, 0);
}

static void owners_of_a_block_are_all_found(void **state)
{
	struct list l, paged;
	struct file f, c[3];
	struct kit k;
	um_lba_t lba;

	(void)state;
	kit_open(&k, 128, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", CAP);
	for (unsigned i = 0; i < 700; i++) /* a tree of several leaves */
		file_write(&k, &f, (uint64_t)i * 2 * B, B, i);
	for (unsigned i = 0; i < 3; i++) {
		file_make(&k, &c[i], (const char *[]){"c0", "c1", "c2"}[i], CAP);
		ok(umbra_clone(k.fs, f.ino, c[i].ino));
		want_bytes(&c[i], 0, f.want, f.size);
	}
	lba = file_lba(&k, &f, 1000);
	owners(&k, lba, 0, &l);
	assert_int_equal(l.n, 4);
	assert_int_equal(l.cached, 0);
	file_verify(&k, &c[1]);
	file_verify(&k, &c[2]);
	owners(&k, lba, 0, &l);
	assert_int_equal(l.cached, 2);
	/* A second place in one file, and one clone less. */
	ok(umbra_clone_range(k.fs, f.ino, 1000 * B, B, c[0].ino, 1401 * B));
	want_bytes(&c[0], 1401 * B, f.want + 1000 * B, B);
	file_write(&k, &c[1], 1000 * B, 1, 7);
	owners(&k, lba, 0, &l);
	assert_int_equal(l.n, 4);
	assert_int_equal(l.ino[0], f.ino);
	assert_int_equal(l.off[0], 1000 * B);
	assert_int_equal(l.ino[1], c[0].ino);
	assert_int_equal(l.ino[2], c[0].ino);
	assert_int_equal(l.off[2], 1401 * B);
	assert_int_equal(l.ino[3], c[2].ino);
	/* One at a time gives the same. */
	owners(&k, lba, 1, &paged);
	assert_int_equal(paged.n, l.n);
	assert_memory_equal(paged.ino, l.ino, l.n * sizeof(l.ino[0]));
	assert_memory_equal(paged.off, l.off, l.n * sizeof(l.off[0]));
	/* The clone's own copy has one owner. */
	owners(&k, file_lba(&k, &c[1], 1000), 0, &l);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.ino[0], c[1].ino);
	for (unsigned i = 0; i < 3; i++) {
		file_verify(&k, &c[i]);
		file_free(&c[i]);
	}
	file_free(&f);
	kit_close(&k);
}

/* For every block of a few files that share this way and that: the scan says what the maps say. */
static void owners_agree_with_the_maps_of_all_files(void **state)
{
	enum { N = 6, LEN = 900 };
	struct model m = {.random = 4711};
	struct file f[N];
	struct kit k;

	(void)state;
	kit_open(&k, 256, UMBRA_DATA_ATOMIC);
	for (unsigned i = 0; i < N; i++) {
		file_make(&k, &f[i], (const char *[]){"a", "b", "c", "d", "e", "g"}[i], CAP);
		if (!i)
			for (unsigned b = 0; b < LEN; b += 2)
				file_write(&k, &f[0], (uint64_t)b * B, B, b);
		else
			ok(umbra_clone(k.fs, f[rnd(&m, i)].ino, f[i].ino));
		for (unsigned w = 0; w < 5; w++)
			ok(umbra_write(k.fs, f[i].ino, "x", 1, rnd(&m, LEN) * B, 0, NULL) != 1);
		if (i)
			ok(umbra_clone_range(k.fs, f[0].ino, rnd(&m, LEN / 2) * B, 50 * B, f[i].ino,
				rnd(&m, LEN / 2) * B));
	}
	for (unsigned t = 0; t < 60; t++) {
		um_lba_t lba = file_lba(&k, &f[rnd(&m, N)], rnd(&m, LEN - 1));
		unsigned want = 0;
		struct list l;

		if (!lba)
			continue;
		owners(&k, lba, 0, &l);
		for (unsigned i = 0; i < N; i++)
			for (unsigned b = 0; b < LEN; b++)
				if (file_lba(&k, &f[i], b) == lba) {
					assert_true(want < l.n);
					assert_int_equal(l.ino[want], f[i].ino);
					assert_int_equal(l.off[want], (uint64_t)b * B);
					want++;
				}
		assert_int_equal(l.n, want);
	}
	for (unsigned i = 0; i < N; i++)
		file_free(&f[i]);
	kit_close(&k);
}

static int list_name(void *arg, uint64_t ino, uint64_t dir, const char *name)
{
	struct list *l = arg;

	if (l->n == l->stop_at)
		return 1;
	l->ino[l->n] = ino;
	l->dir[l->n] = dir;
	strcpy(l->name[l->n++], name);
	return 0;
}

static void names_lead_to_paths(void **state)
{
	struct umbra_cred cred = {.umask = 022};
	struct umbra_name_scan scan = {0};
	struct umbra_attr a, b, attr;
	struct list l = {.n = 0};
	char path[256];
	struct kit k;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	ok(umbra_mknod(k.fs, UM_ROOT_INO, "a", S_IFDIR | 0755, 0, &cred, &a));
	ok(umbra_mknod(k.fs, a.st.st_ino, "b", S_IFDIR | 0755, 0, &cred, &b));
	ok(umbra_mknod(k.fs, b.st.st_ino, "f", S_IFREG | 0644, 0, &cred, &attr));
	ok(umbra_link(k.fs, attr.st.st_ino, UM_ROOT_INO, "link", &attr));
	do {
		l.stop_at = l.n + 1;
		ok(umbra_find_names(
			k.fs, (uint64_t[]){attr.st.st_ino}, 1, &scan, 1, list_name, &l));
	} while (!scan.done);
	assert_int_equal(l.n, 2);
	assert_string_equal(l.name[0], "link");
	ok(umbra_dir_path(k.fs, l.dir[0], path, sizeof(path)));
	assert_string_equal(path, "/");
	assert_string_equal(l.name[1], "f");
	ok(umbra_dir_path(k.fs, l.dir[1], path, sizeof(path)));
	assert_string_equal(path, "/a/b");
	assert_int_equal(umbra_dir_path(k.fs, l.dir[1], path, 4), -ENAMETOOLONG);
	kit_close(&k);
}

/* ---- two that copy one block ---------------------------------------------------------------------------- */

struct racer {
	pthread_t thread;
	struct kit *k;
	struct file *f;
};

static void *race(void *arg)
{
	struct racer *r = arg;
	uint8_t buf[B];

	for (unsigned i = 0; i < 64; i++) {
		memset(buf, (int)(r->f->ino + i), sizeof(buf));
		assert_int_equal(
			umbra_write(r->k->fs, r->f->ino, buf, 100, i * B + 5, 0, NULL), 100);
		assert_int_equal(umbra_read(r->k->fs, r->f->ino, buf, B, i * B), B);
	}
	return NULL;
}

static void all_copies_of_all_blocks_written_at_once(void **state)
{
	struct racer r[4];
	struct file f[4];
	struct kit k;

	(void)state;
	clones(&k, f, 4, 64);
	for (unsigned i = 0; i < 4; i++) {
		r[i] = (struct racer){.k = &k, .f = &f[i]};
		ok(pthread_create(&r[i].thread, NULL, race, &r[i]));
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(r[i].thread, NULL);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned b = 0; b < 64; b++) {
			memset(f[i].want + b * B + 5, (int)(f[i].ino + b), 100);
			for (unsigned j = 0; j < i; j++)
				assert_true(file_lba(&k, &f[i], b) != file_lba(&k, &f[j], b));
		}
	for (unsigned i = 0; i < 4; i++)
		file_verify(&k, &f[i]);
	assert_int_equal(counter(&k, "shadows"), 0);
	files_free(&k, f, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_is_what_a_plain_array_says),
		cmocka_unit_test(pieces_of_a_window_join_and_come_in_order),
		cmocka_unit_test(full_table_evicts_and_stays_right),
		cmocka_unit_test(shadow_of_an_old_mapping_is_not_made),
		cmocka_unit_test(master_goes_with_its_last_shadow),
		cmocka_unit_test(threads_share_the_table),
		cmocka_unit_test(reading_clones_makes_shadows_and_a_write_tosses_its_own),
		cmocka_unit_test(unshared_files_have_no_shadows),
		cmocka_unit_test(truncate_punch_clone_and_forget_toss),
		cmocka_unit_test(a_cache_is_old_after_it_was_filled),
		cmocka_unit_test(removed_clones_leave_no_shadow_behind),
		cmocka_unit_test(dedupe_shares_and_reads_then_shadow),
		cmocka_unit_test(owners_of_a_block_are_all_found),
		cmocka_unit_test(owners_agree_with_the_maps_of_all_files),
		cmocka_unit_test(names_lead_to_paths),
		cmocka_unit_test(all_copies_of_all_blocks_written_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
