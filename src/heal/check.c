/* SPDX-License-Identifier: BSD-3-Clause */
/* The check as a whole: opening, replay, passes, report. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "heal/check_int.h"
#include "pool/log.h"
#include "txn/internal.h"

/* Repairs uncover problems that were hidden; each pass removes something, so this many are never
 * needed. */
#define PASSES_MAX 12u

/* ---- reporting ---------------------------------------------------------------------------------------- */

bool um_problem(struct um_check *c, const char *code, enum um_cure cure, const char *fmt, ...)
{
	bool now = c->fix && !c->err && (cure == UM_CURE_SAFE || c->mode == UMBRA_CHECK_REPAIR);
	char text[512];
	va_list args;

	c->found++;
	if (now)
		c->fixed++;
	else if (c->mute)
		return false;
	c->report->problems++;
	if (now)
		c->report->repaired++;
	else
		c->report->unrepaired++;
	if (!c->fn)
		return now;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	c->fn(c->arg, code, now, text);
	return now;
}

/* ---- arrays ---------------------------------------------------------------------------------------------- */

bool um_grow(struct um_check *c, void *array, size_t n, size_t *cap, size_t size)
{
	void **at = array, *bigger;

	if (n < *cap)
		return true;
	bigger = realloc(*at, (*cap ? 2 * *cap : 64) * size);
	if (!bigger) {
		c->err = -ENOMEM;
		return false;
	}
	*at = bigger;
	*cap = *cap ? 2 * *cap : 64;
	return true;
}

static int compare_ino(const void *key, const void *member)
{
	um_ino_t a = *(const um_ino_t *)key, b = *(const um_ino_t *)member;

	return a < b ? -1 : a > b;
}

static_assert(offsetof(struct um_ino_info, ino) == 0, "compare_ino");
static_assert(offsetof(struct um_orphan_info, ino) == 0, "compare_ino");

struct um_ino_info *um_ino_find(struct um_check *c, um_ino_t ino)
{
	if (!c->nino)
		return NULL;
	return bsearch(&ino, c->ino, c->nino, sizeof(*c->ino), compare_ino);
}

struct um_orphan_info *um_orphan_find(struct um_check *c, um_ino_t ino)
{
	if (!c->norphan)
		return NULL;
	return bsearch(&ino, c->orphan, c->norphan, sizeof(*c->orphan), compare_ino);
}

/* ---- a pass ------------------------------------------------------------------------------------------------- */

static void end_pass(struct um_check *c)
{
	uint64_t i;

	for (i = 0; i < c->rebuilt.cap; i++)
		if (c->rebuilt.slot[2 * i])
			free((void *)(uintptr_t)c->rebuilt.slot[2 * i + 1]);
	um_map_clear(&c->rebuilt);
	um_map_clear(&c->bad);
	um_map_clear(&c->seen);
	um_map_clear(&c->sums);
	um_counts_close(&c->counts);
}

static int begin_pass(struct um_check *c)
{
	const struct um_super *super = &c->pool->super;
	uint64_t i;
	int ret = um_counts_open(&c->counts, c->pool);

	c->found = c->fixed = c->nrelink = c->max_ino = 0;
	c->nsum = c->nino = c->ndir = c->norphan = c->nscan = c->ntrim = 0;
	c->scanned = c->need_root_dir = c->root_dirty = false;
	c->report->inodes = c->report->directories = c->report->files = 0;
	c->report->extents = c->report->nodes = 0;
	c->report->blocks_used = c->report->blocks_free = 0;
	for (i = 0; i < super->journal_blocks && !ret; i++)
		ret = um_counts_add(&c->counts, super->journal_lba + i, UM_USE_FIXED);
	for (i = 0; super->journal_mirror && i < super->journal_blocks && !ret; i++)
		ret = um_counts_add(&c->counts, super->journal_mirror + i, UM_USE_FIXED);
	return ret;
}

static int run_pass(struct um_check *c)
{
	int ret = begin_pass(c);

	if (ret)
		return ret;
	um_check_supers(c);
	um_check_root_load(c);
	um_check_orphans_load(c);
	um_check_inodes(c);
	um_check_bads(c);
	if (!c->err)
		um_check_entries(c);
	if (!c->err)
		um_check_links(c);
	if (!c->err)
		um_check_space(c);
	if (!c->err)
		um_check_csums(c);
	if (!c->err)
		um_check_parity(c);
	if (!c->err)
		um_check_root_store(c);
	ret = um_pool_barrier(c->pool);
	return c->err ? c->err : c->mode == UMBRA_CHECK_ONLY ? 0 : ret;
}

static int pass_and_relink(struct um_check *c)
{
	int ret = run_pass(c);

	if (!ret && um_may_fix(c) && (c->nrelink || c->need_root_dir || c->ntrim)) {
		ret = um_relink(c);
		if (ret)
			um_err("%s: after the pass: %s", c->pool->path, strerror(-ret));
		if (ret == -ENOSPC || ret == -EUCLEAN)
			ret = 0; /* the last pass reports what remains */
	}
	return ret;
}

static int repair(struct um_check *c)
{
	unsigned pass;
	int ret = 0;

	for (pass = 0; pass < PASSES_MAX && !ret; pass++) {
		c->fix = c->mute = true;
		ret = pass_and_relink(c);
		end_pass(c);
		if (ret || !c->found)
			return ret;
		if (!c->fixed)
			break;
	}
	if (ret)
		return ret;
	c->fix = c->mute = false;
	ret = run_pass(c);
	end_pass(c);
	return ret;
}

/* ---- around the passes ------------------------------------------------------------------------------------------ */

static void report_supers(struct um_check *c, bool restored)
{
	unsigned i;

	c->fix = c->mode != UMBRA_CHECK_ONLY;
	/* Opening the pool has rewritten them; if that was not allowed, the pass reads them
	 * itself. */
	for (i = 0; i < 2 && c->fix; i++)
		if (c->pool->super_repaired >> i & 1)
			um_problem(c, "super", UM_CURE_SAFE, "%s superblock was bad; rewritten",
				i ? "second" : "first");
	if (restored)
		um_problem(c, "super", UM_CURE_FULL,
			"both superblocks were bad; replaced from a backup");
	um_check_super_fields(c);
	c->fix = false;
}

static bool journal_head_sound(struct um_check *c, um_lba_t lba)
{
	um_block_t block;
	const struct um_journal *head = (const struct um_journal *)block;

	return um_read_raw(c, lba, block) && head->hdr.magic == UM_MAGIC(UM_KIND_JOURNAL) &&
	       um_journal_csum(head) == head->hdr.csum;
}

/* One of the two copies of the journal's header is bad: opening the log will rewrite it. */
static void report_journal(struct um_check *c)
{
	const struct um_super *super = &c->pool->super;
	bool first, second;

	if (!super->journal_mirror)
		return;
	first = journal_head_sound(c, super->journal_lba);
	second = journal_head_sound(c, super->journal_mirror);
	c->fix = c->mode != UMBRA_CHECK_ONLY;
	if (first != second)
		um_problem(c, "journal", UM_CURE_SAFE,
			"copy of the journal's header at block %llu is bad",
			(unsigned long long)(first ? super->journal_mirror : super->journal_lba));
	c->fix = false;
}

/* -EUCLEAN if the journal cannot be read and must not be recreated. */
static int replay(struct um_check *c)
{
	struct um_log *log;
	int ret;

	report_journal(c);
	ret = um_log_open(c->pool, &log);
	if (!ret) {
		c->report->replayed = um_log_replayed(log);
		if (c->mode != UMBRA_CHECK_ONLY)
			return um_log_close(log);
		um_log_abandon(log);
		return 0;
	}
	/* A write error is not the journal's fault: it may be good another time. */
	if (ret != -EUCLEAN)
		return ret;
	c->fix = c->mode == UMBRA_CHECK_REPAIR;
	if (um_problem(c, "journal", UM_CURE_FULL,
		    "the journal cannot be read; changes that were only in it are lost"))
		return um_log_format(c->pool);
	c->fix = false;
	return c->mode == UMBRA_CHECK_PREEN ? -EUCLEAN : 0;
}

static void read_state(struct um_check *c)
{
	const struct um_pool_root *root;
	const char *why;
	um_block_t block;
	bool mute = c->mute, fix = c->fix;
	umbra_check_fn *fn = c->fn;
	struct umbra_check_report report = *c->report;

	/* Only a check: the pass will report what is wrong with the block. */
	c->mute = true;
	c->fix = false;
	c->fn = NULL;
	if (!um_load_fixed(c, c->pool->super.root, UM_KIND_ROOT, block, &why)) {
		root = (const struct um_pool_root *)block;
		report.was_clean = root->clean == 1 && !root->errors;
	}
	*c->report = report;
	c->mute = mute;
	c->fix = fix;
	c->fn = fn;
}

/* Everything is right now, and the next mount and fsck -p may rely on it. If that cannot be written
 * to both copies they are left as they were. */
static int mark_clean(struct um_check *c)
{
	struct um_pool_root *root;
	um_block_t block, was;
	const char *why;

	c->fix = false; /* the last pass has reported what this finds */
	c->mute = true;
	if (um_load_fixed(c, c->pool->super.root, UM_KIND_ROOT, block, &why))
		return 0;
	root = (struct um_pool_root *)block;
	if (root->clean == 1 && !root->errors)
		return 0;
	memcpy(was, block, sizeof(was));
	root->clean = 1;
	root->errors = 0;
	c->fix = true;
	um_write_block(c, c->pool->super.root, block);
	if (c->fix)
		return um_pool_barrier(c->pool);
	um_write_block(c, c->pool->super.root, was);
	return -EIO;
}

static void free_check(struct um_check *c)
{
	end_pass(c);
	um_map_clear(&c->claims);
	free(c->sum);
	free(c->ino);
	free(c->dir);
	free(c->orphan);
	free(c->scan);
	free(c->trim);
}

static int check_pool(struct um_pool *pool, enum umbra_check_mode mode, bool restored,
	umbra_check_fn *fn, void *arg, struct umbra_check_report *out)
{
	struct umbra_check_report none;
	struct um_check c = {
		.pool = pool, .mode = mode, .fn = fn, .arg = arg, .report = out ? out : &none};
	int ret;

	memset(c.report, 0, sizeof(*c.report));
	um_check_attach(pool);
	report_supers(&c, restored);
	read_state(&c);
	ret = replay(&c);
	if (c.report->replayed)
		c.report->was_clean = false;
	if (ret == -EUCLEAN && mode == UMBRA_CHECK_PREEN) {
		ret = 0; /* reported; nothing may be repaired around it */
	} else if (!ret && mode == UMBRA_CHECK_REPAIR) {
		ret = repair(&c);
	} else if (!ret) {
		c.fix = mode == UMBRA_CHECK_PREEN;
		ret = run_pass(&c);
	}
	if (!ret && mode != UMBRA_CHECK_ONLY && !c.report->unrepaired)
		ret = mark_clean(&c);
	free_check(&c);
	return ret;
}

int um_check_pool(struct um_pool *pool, enum umbra_check_mode mode, umbra_check_fn *fn, void *arg,
	struct umbra_check_report *out)
{
	return check_pool(pool, mode, false, fn, arg, out);
}

static unsigned open_flags(enum umbra_check_mode mode)
{
	return mode == UMBRA_CHECK_ONLY ? UM_POOL_RDONLY | UM_POOL_PRIVATE : UM_POOL_EXCL;
}

static bool may_restore(enum umbra_check_mode mode, int err)
{
	return mode == UMBRA_CHECK_REPAIR && (err == -EUCLEAN || err == -EMEDIUMTYPE);
}

int umbra_check_image(void *base, uint64_t size, enum umbra_check_mode mode, umbra_check_fn *fn,
	void *arg, struct umbra_check_report *out)
{
	struct um_pool *pool;
	bool restored = false;
	int ret = um_pool_open_image(base, size, open_flags(mode), &pool);

	if (may_restore(mode, ret) && !um_restore_super_image(base, size)) {
		restored = true;
		ret = um_pool_open_image(base, size, open_flags(mode), &pool);
	}
	if (ret)
		return ret;
	ret = check_pool(pool, mode, restored, fn, arg, out);
	um_pool_close(pool);
	return ret;
}

int umbra_check(const char *path, enum umbra_check_mode mode, umbra_check_fn *fn, void *arg,
	struct umbra_check_report *out)
{
	struct um_pool *pool;
	bool restored = false;
	int ret = um_pool_open(path, open_flags(mode), 0, &pool);

	if (may_restore(mode, ret) && !um_restore_super(path)) {
		restored = true;
		ret = um_pool_open(path, open_flags(mode), 0, &pool);
	}
	if (ret)
		return ret;
	ret = check_pool(pool, mode, restored, fn, arg, out);
	um_pool_close(pool);
	return ret;
}
