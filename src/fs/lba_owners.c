/* SPDX-License-Identifier: BSD-3-Clause */
/* From a block of the pool to all files that refer to it, and from inodes to their names. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/data.h"
#include "page/page.h"

#define BATCH 64u       /* inodes, or directories, gathered at a time */
#define BEHIND_DOTS 2u  /* readdir's position after "." and "..": touches no times */
#define STEP_LEAVES 64u /* examined per acquisition of the read lock: about 100 us */

/* ---- inodes, in the order of their numbers -------------------------------------------------------- */

struct batch {
	um_ino_t ino[BATCH];
	unsigned n, seen, max_seen;
	uint64_t next; /* where the tree continues */
	bool (*wanted)(const struct um_inode_core *core);
};

static int batch_add(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct batch *b = arg;
	struct um_inode_core core;

	if (len < sizeof(core))
		return -EUCLEAN;
	if (b->n == BATCH || b->seen == b->max_seen) {
		b->next = key;
		return 1;
	}
	memcpy(&core, val, sizeof(core));
	b->seen++;
	if (b->wanted(&core))
		b->ino[b->n++] = key;
	return 0;
}

/* Under the read lock. b->next is UINT64_MAX if there are no more. */
static int batch_get(struct um_src src, uint64_t first, struct batch *b)
{
	struct um_tree tree;
	int err = um_root_tree(src, UM_ROOT_INODES, &tree);

	b->n = b->seen = 0;
	b->next = UINT64_MAX;
	if (!err)
		err = um_tree_walk(src, &tree, first, UINT64_MAX, batch_add, b);
	return err < 0 ? err : 0;
}

/* ---- owners ----------------------------------------------------------------------------------------- */

static bool has_extents(const struct um_inode_core *core)
{
	return S_ISREG(core->mode) &&
	       (core->data.format == UM_ROOT_EMBED || core->data.format == UM_ROOT_NODE);
}

struct owners {
	struct umbra_fs *fs;
	struct umbra_owner_scan *scan;
	struct um_finder *finder;
	umbra_lba_owner_fn *fn;
	void *arg;
};

static int owner_hit(void *arg, const struct um_hit *hit)
{
	struct owners *o = arg;
	struct um_shadow s;
	bool cached = um_shadow_find(o->fs->page, o->scan->ino, hit->block, &s);

	return o->fn(o->arg, o->scan->ino, hit->block << UM_BLOCK_SHIFT, cached);
}

/* Examines one file, until it or the budget is exhausted. */
static int owners_file(struct owners *o, um_ino_t ino, unsigned *budget)
{
	struct um_src src = um_fs_src(o->fs);
	struct um_inode inode;
	struct um_tree tree;
	int err = um_inode_load(src, ino, &inode);

	if (ino != o->scan->ino) {
		o->scan->ino = ino;
		o->scan->key = 0;
	}
	if (!err && !has_extents(&inode.core))
		err = -ESTALE;
	if (!err) {
		um_inode_tree(&inode, UM_FORK_DATA, &tree);
		err = um_finder_step(o->finder, src, um_log_committed(o->fs->log), &tree,
			&o->scan->key, budget, owner_hit, o);
	}
	if (err > 0)
		return err;
	/* An unreadable file must not hide the owners after it. */
	o->scan->damaged += err && err != -ESTALE;
	if (err || o->scan->key == UINT64_MAX) {
		o->scan->ino = ino + 1;
		o->scan->key = 0;
	}
	return 0;
}

/* The work done per acquisition of the read lock. */
static int owners_step(struct owners *o, unsigned *inodes)
{
	struct batch b = {.wanted = has_extents, .max_seen = *inodes};
	unsigned budget = STEP_LEAVES;
	int err = batch_get(um_fs_src(o->fs), o->scan->ino, &b);

	if (um_log_committed(o->fs->log) != o->scan->seq)
		o->scan->changed = true;
	for (unsigned i = 0; !err && i < b.n && budget; i++) {
		err = owners_file(o, b.ino[i], &budget);
		if (err || o->scan->ino == b.ino[i])
			return err; /* not finished with it */
		o->scan->inodes++;
		budget -= budget != 0;
		--*inodes;
		if (!budget && i + 1 < b.n)
			return 0;
	}
	if (err)
		return err;
	*inodes -= b.seen - b.n < *inodes ? b.seen - b.n : *inodes;
	o->scan->ino = b.next;
	o->scan->key = 0;
	o->scan->done = b.next == UINT64_MAX;
	return 0;
}

/* A group's tables and the like: never part of a file, and without counts. */
static bool is_table(const struct um_pool *pool, um_lba_t lba)
{
	return !um_chunk_usable(&pool->super, um_chunk_of(lba));
}

int umbra_lba_owners(struct umbra_fs *fs, struct umbra_owner_scan *scan, unsigned inodes,
	umbra_lba_owner_fn *fn, void *arg)
{
	struct owners o = {.fs = fs, .scan = scan, .fn = fn, .arg = arg};
	uint32_t same;
	int err = um_fs_alive(fs);

	if (!err && !um_lba_ok(fs->pool, scan->lba, 1))
		err = -EINVAL;
	if (!err && is_table(fs->pool, scan->lba)) {
		scan->refs = 0;
		scan->done = true;
		return 0;
	}
	if (!err)
		err = um_finder_new(scan->lba, 1, &o.finder);
	if (err)
		return err;
	um_log_read_lock(fs->log);
	if (!scan->ino) {
		scan->ino = 1;
		scan->seq = um_log_committed(fs->log);
	}
	err = um_ref_count(um_fs_src(fs), scan->lba, 1, &scan->refs, &same);
	um_log_read_unlock(fs->log);
	while (!err && !scan->done && inodes) {
		um_log_read_lock(fs->log);
		err = owners_step(&o, &inodes);
		um_log_read_unlock(fs->log);
		inodes -= inodes != 0;
	}
	um_finder_free(o.finder);
	return err < 0 ? err : 0;
}

/* ---- names --------------------------------------------------------------------------------------------- */

static bool is_dir(const struct um_inode_core *core)
{
	return S_ISDIR(core->mode) && core->nlink;
}

struct names {
	const uint64_t *inos;
	unsigned n;
	struct umbra_name_scan *scan;
	umbra_name_fn *fn;
	void *arg;
	int stop;
};

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int names_entry(
	void *arg, const char *name, uint64_t ino, unsigned char type, uint64_t cookie)
{
	struct names *s = arg;

	(void)type;
	if (bsearch(&ino, s->inos, s->n, sizeof(ino), by_number)) {
		s->stop = s->fn(s->arg, ino, s->scan->dir, name);
		if (s->stop)
			return 1;
	}
	s->scan->cookie = cookie;
	return 0;
}

int umbra_find_names(struct umbra_fs *fs, const uint64_t *inos, unsigned n,
	struct umbra_name_scan *scan, unsigned dirs, umbra_name_fn *fn, void *arg)
{
	struct names s = {inos, n, scan, fn, arg, 0};
	int err = 0;

	while (!err && !scan->done && dirs) {
		struct batch b = {.wanted = is_dir, .max_seen = 16 * BATCH};

		um_log_read_lock(fs->log);
		err = batch_get(um_fs_src(fs), scan->dir, &b);
		um_log_read_unlock(fs->log);
		for (unsigned i = 0; !err && i < b.n; i++) {
			if (scan->dir != b.ino[i])
				*scan = (struct umbra_name_scan){
					.dir = b.ino[i], .cookie = BEHIND_DOTS};
			if (!dirs)
				return 0;
			dirs--;
			err = umbra_readdir(fs, scan->dir, scan->cookie, names_entry, &s);
			if (s.stop)
				return s.stop < 0 ? s.stop : 0;
			/* Removed meanwhile, or damaged: continue with the others. */
			err = 0;
		}
		*scan = (struct umbra_name_scan){.dir = b.next, .done = b.next == UINT64_MAX};
	}
	return err;
}

struct child {
	uint64_t ino;
	char name[UMBRA_NAME_MAX + 1];
	bool found;
};

static int child_entry(
	void *arg, const char *name, uint64_t ino, unsigned char type, uint64_t cookie)
{
	struct child *c = arg;

	(void)type, (void)cookie;
	if (ino != c->ino)
		return 0;
	memcpy(c->name, name, strlen(name) + 1);
	c->found = true;
	return 1;
}

int umbra_dir_path(struct umbra_fs *fs, uint64_t dir, char *buf, size_t size)
{
	size_t at = size;
	int err = 0;

	if (size < 2)
		return -ENAMETOOLONG;
	buf[--at] = 0;
	/* Each iteration takes at least two bytes, so a loop of parents ends too. */
	while (!err && dir != UM_ROOT_INO) {
		struct child child = {.ino = dir};
		struct um_inode inode;
		size_t len;

		err = um_inode_read(fs, dir, &inode);
		if (!err && !S_ISDIR(inode.core.mode))
			err = -ENOTDIR;
		if (!err)
			err = umbra_readdir(
				fs, inode.core.parent, BEHIND_DOTS, child_entry, &child);
		if (!err && !child.found)
			err = -ENOENT;
		if (err)
			return err;
		len = strlen(child.name);
		if (len + 1 > at)
			return -ENAMETOOLONG;
		at -= len;
		memcpy(buf + at, child.name, len);
		buf[--at] = '/';
		dir = inode.core.parent;
	}
	if (!err && !buf[at])
		buf[--at] = '/';
	memmove(buf, buf + at, size - at);
	return err;
}
