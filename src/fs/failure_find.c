/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finds out what a failed block was, and whose. There is no index from blocks to their referrers
 * (src/DESIGN.md, section 9): the nodes of all trees except leaves are searched, under the read
 * lock for some dozens of inodes at a time.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/data.h"
#include "fs/failure.h"

#define FOUND 2         /* ends a walk */
#define STEP_INODES 64u /* examined per acquisition of the read lock */
#define SEEN_MAX 65536u /* shared nodes remembered, so that what is below is read once */

/* ---- fixed places ---------------------------------------------------------------------------------- */

static bool in_range(um_lba_t lba, um_lba_t first, uint64_t n)
{
	return first && lba >= first && lba - first < n;
}

static bool find_journal(const struct um_super *super, um_lba_t lba, struct um_found *out)
{
	um_lba_t first = super->journal_lba, second = super->journal_mirror;

	if (in_range(lba, first, super->journal_blocks))
		out->ptr = (struct um_ptr){lba, second ? second + (lba - first) : 0};
	else if (in_range(lba, second, super->journal_blocks))
		out->ptr = (struct um_ptr){first + (lba - second), lba};
	else
		return false;
	out->what = UM_FOUND_FIXED;
	out->kind = UM_KIND_JOURNAL;
	return true;
}

/* A block of cover: it is in a place of counts that parity chunks do not have. */
static bool find_cover(const struct um_pool *pool, uint32_t ag, unsigned at, struct um_found *out)
{
	uint64_t first = um_ag_first(&pool->super, ag);
	struct um_group group;

	um_group_layout(&pool->super, ag, &group);
	for (uint32_t i = 0; i < group.first + group.data; i += UM_COVER_CHUNKS) {
		struct um_ptr ptr = um_cover_ptr(pool, first + i);

		if (!ptr.lba || ptr.lba % UM_CHUNK_BLOCKS != at)
			continue;
		out->kind = UM_KIND_COVER;
		out->ptr = ptr;
		return true;
	}
	return false;
}

/* A block of a table chunk, or its mirror. */
static void find_table(
	const struct um_pool *pool, uint32_t ag, unsigned at, um_lba_t lba, struct um_found *out)
{
	if (at == UM_TABLE_SUPER) {
		out->kind = UM_KIND_SUPER;
		out->ptr = (struct um_ptr){0, um_super_second(&pool->super)};
		if (lba != out->ptr.lba && lba != out->ptr.mirror)
			out->ptr = (struct um_ptr){lba, 0}; /* a backup */
	} else if (at == UM_TABLE_AG) {
		out->kind = UM_KIND_AG;
		out->ptr = um_ag_ptr(pool, ag);
	} else if (at == UM_TABLE_ROOT && !ag) {
		out->kind = UM_KIND_ROOT;
		out->ptr = pool->super.root;
	} else if (find_cover(pool, ag, at, out)) {
		return;
	} else if (at >= UM_TABLE_REF && at - UM_TABLE_REF < um_ag_chunks(pool, ag)) {
		out->kind = UM_KIND_REF;
		out->ptr = um_refs_ptr(pool, um_ag_first(&pool->super, ag) + at - UM_TABLE_REF);
	}
}

static void find_sums(const struct um_pool *pool, uint32_t ag, unsigned at, struct um_found *out)
{
	if (at == UM_TABLE_AG) {
		out->kind = UM_KIND_CSUM_AG;
		out->ptr = um_csum_ag_ptr(pool, ag);
	} else if (at >= UM_TABLE_REF && at - UM_TABLE_REF < um_ag_chunks(pool, ag)) {
		out->kind = UM_KIND_CSUMS;
		out->ptr = um_csums_ptr(pool, um_ag_first(&pool->super, ag) + at - UM_TABLE_REF);
	}
}

bool um_failure_fixed(const struct um_pool *pool, um_lba_t lba, struct um_found *out)
{
	uint64_t chunk = um_chunk_of(lba);
	struct um_place place = um_chunk_place(&pool->super, chunk);
	uint32_t ag = place.ag, i = place.i;
	unsigned at = lba % UM_CHUNK_BLOCKS;
	struct um_group group;

	if (find_journal(&pool->super, lba, out))
		return true;
	if (um_chunk_usable(&pool->super, chunk))
		return false;
	um_group_layout(&pool->super, ag, &group);
	out->what = UM_FOUND_FIXED;
	out->ptr = (struct um_ptr){lba, 0}; /* usually unused */
	if (!i || i + 1 == group.chunks)
		find_table(pool, ag, at, lba, out);
	else if (i == group.csum || i == group.csum_mirror)
		find_sums(pool, ag, at, out);
	else if (group.nparity && i >= group.parity && i - group.parity < group.nparity)
		out->kind = UM_KIND_PARITY;
	return true;
}

/* ---- nodes ----------------------------------------------------------------------------------------- */

struct search {
	struct umbra_fs *fs;
	um_lba_t lba;
	struct um_found *out;
	enum um_kind kind;
	um_ino_t ino, next; /* owner of the tree; where the inode tree continues */
	unsigned left;      /* inodes until the lock is released */
	um_lba_t *seen;     /* open addressing; when full, no more are remembered */
	unsigned nseen;
};

/* A node with several parents that was found before. */
static bool met(struct search *s, um_lba_t lba)
{
	unsigned at = (unsigned)(lba * 0x9e3779b97f4a7c15ull >> 40) % (2 * SEEN_MAX);
	uint32_t count, same;

	if (um_ref_count(um_fs_src(s->fs), lba, 1, &count, &same) || count < 2)
		return false;
	for (; s->seen[at]; at = (at + 1) % (2 * SEEN_MAX))
		if (s->seen[at] == lba)
			return true;
	if (s->nseen < SEEN_MAX) {
		s->seen[at] = lba;
		s->nseen++;
	}
	return false;
}

static int search_node(void *arg, struct um_ptr ptr, unsigned level)
{
	struct search *s = arg;

	if (ptr.lba == s->lba || ptr.mirror == s->lba) {
		s->out->what = UM_FOUND_NODE;
		s->out->kind = s->kind;
		s->out->ptr = ptr;
		s->out->ino = s->ino;
		return FOUND;
	}
	return level && s->kind == UM_KIND_EXTENTS && met(s, ptr.lba) ? UM_NODES_SKIP : 0;
}

static int search_root(
	struct search *s, const struct um_tree_type *type, const struct um_root *root)
{
	struct um_tree tree = {.type = type, .root = *root, .owner = s->ino};

	if (root->format != UM_ROOT_NODE)
		return 0;
	s->kind = type->kind;
	return um_tree_nodes(um_fs_src(s->fs), &tree, search_node, s) == FOUND ? FOUND : 0;
}

static int search_inode(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct search *s = arg;
	struct um_inode_core core;
	int ret = 0;

	if (!s->left--)
		return 1;
	s->next = key + 1;
	if (len < sizeof(core))
		return 0;
	memcpy(&core, val, sizeof(core));
	s->ino = key;
	if (S_ISREG(core.mode))
		ret = search_root(s, &um_extents_type, &core.data);
	else if (S_ISDIR(core.mode))
		ret = search_root(s, &um_dir_type, &core.data);
	return ret ? ret : search_root(s, &um_xattr_type, &core.xattr);
}

/* The pool's own trees. */
static int search_pool(struct search *s)
{
	struct um_tree tree;
	int ret = 0;

	s->ino = 0;
	for (int which = UM_ROOT_INODES; !ret && which <= UM_ROOT_EVENTS; which++)
		if (!um_root_tree(um_fs_src(s->fs), (enum um_root_which)which, &tree))
			ret = search_root(s, tree.type, &tree.root);
	return ret;
}

/* The next inodes; an unreadable leaf of their tree ends the search. */
static int search_inodes(struct search *s)
{
	struct um_tree tree;
	int ret = um_root_tree(um_fs_src(s->fs), UM_ROOT_INODES, &tree);

	s->left = STEP_INODES;
	if (!ret)
		ret = um_tree_walk(um_fs_src(s->fs), &tree, s->next, UINT64_MAX, search_inode, s);
	return ret;
}

static int search_trees(struct search *s)
{
	int ret;

	um_log_read_lock(s->fs->log);
	ret = search_pool(s);
	um_log_read_unlock(s->fs->log);
	for (s->next = 1; !ret || ret == 1;) {
		um_log_read_lock(s->fs->log);
		ret = search_inodes(s);
		um_log_read_unlock(s->fs->log);
		if (!ret)
			return 0;
	}
	return ret == FOUND ? FOUND : 0;
}

int um_failure_find(struct umbra_fs *fs, um_lba_t lba, struct um_found *out)
{
	struct search s = {.fs = fs, .lba = lba, .out = out};
	uint32_t count, same;
	int ret;

	memset(out, 0, sizeof(*out));
	if (lba >= fs->pool->nblocks)
		return -EINVAL;
	if (um_failure_fixed(fs->pool, lba, out))
		return 0;
	um_log_read_lock(fs->log);
	ret = um_ref_count(um_fs_src(fs), lba, 1, &count, &same);
	um_log_read_unlock(fs->log);
	if (ret)
		return ret;
	if (!count || count == UM_REF_RETIRED) {
		out->what = count ? UM_FOUND_RETIRED : UM_FOUND_FREE;
		return 0;
	}
	out->what = UM_FOUND_DATA;
	s.seen = calloc(2 * SEEN_MAX, sizeof(*s.seen));
	if (!s.seen)
		return -ENOMEM;
	search_trees(&s);
	free(s.seen);
	return 0;
}

/* ---- owners ------------------------------------------------------------------------------------------ */

struct owners {
	struct umbra_fs *fs;
	uint64_t total;
	unsigned n;
	struct {
		um_ino_t ino;
		uint64_t off;
		char path[UM_EVENT_PATH + 1];
	} at[UM_EVENT_OWNERS];
};

/* Files without a name are nobody's to restore: open and removed, or the content of a view. */
static bool has_name(struct umbra_fs *fs, um_ino_t ino)
{
	struct um_inode inode;

	return !um_inode_read(fs, ino, &inode) && inode.core.nlink;
}

static int gather_owner(void *arg, uint64_t ino, uint64_t off, bool cached)
{
	struct owners *o = arg;

	(void)cached;
	/* Called under the read lock: whether it has a name is checked later. */
	if (o->n < UM_EVENT_OWNERS) {
		o->at[o->n].ino = ino;
		o->at[o->n].off = off;
		o->at[o->n++].path[0] = 0;
	}
	o->total++;
	return 0;
}

/* The first ones may be nameless: they are replaced by others, as far as there are some in the
 * list. */
static void drop_nameless(struct owners *o)
{
	unsigned i, n = 0;

	for (i = 0; i < o->n; i++) {
		if (!has_name(o->fs, o->at[i].ino)) {
			o->total--;
			continue;
		}
		if (n != i)
			o->at[n] = o->at[i];
		n++;
	}
	o->n = n;
}

static int note_name(void *arg, uint64_t ino, uint64_t dir, const char *name)
{
	struct owners *o = arg;
	char path[4096 + 256];
	unsigned missing = 0;
	size_t len;

	if (umbra_dir_path(o->fs, dir, path, 4096))
		return 0;
	len = strlen(path);
	if (len > 1)
		path[len++] = '/';
	snprintf(path + len, sizeof(path) - len, "%s", name);
	len = strlen(path);
	for (unsigned i = 0; i < o->n; i++) {
		if (o->at[i].ino == ino && !o->at[i].path[0])
			strcpy(o->at[i].path,
				path + (len > UM_EVENT_PATH ? len - UM_EVENT_PATH : 0));
		missing += !o->at[i].path[0];
	}
	return !missing;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void find_paths(struct owners *o)
{
	struct umbra_name_scan scan = {0};
	uint64_t inos[UM_EVENT_OWNERS];
	unsigned n = 0;

	for (unsigned i = 0; i < o->n; i++)
		if (o->at[i].ino == UM_ROOT_INO)
			strcpy(o->at[i].path, "/");
		else
			inos[n++] = o->at[i].ino;
	if (!n)
		return;
	qsort(inos, n, sizeof(inos[0]), by_number);
	umbra_find_names(o->fs, inos, n, &scan, UINT32_MAX, note_name, o);
}

static uint16_t encode(const struct owners *o, void *event)
{
	struct um_event *head = event;
	uint8_t *at = (uint8_t *)(head + 1);

	head->owners = o->total < UINT32_MAX ? (um_le32_t)o->total : UINT32_MAX;
	head->nowners = (uint8_t)o->n;
	for (unsigned i = 0; i < o->n; i++) {
		const struct um_event_owner owner = {
			.ino = o->at[i].ino,
			.off = o->at[i].off,
			.len = (um_le16_t)strlen(o->at[i].path),
		};

		memcpy(at, &owner, sizeof(owner));
		memcpy(at + sizeof(owner), o->at[i].path, owner.len);
		at += sizeof(owner) + owner.len;
	}
	return (uint16_t)(at - (uint8_t *)event);
}

uint16_t um_failure_owners(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, void *event)
{
	struct umbra_owner_scan scan = {.lba = lba};
	struct owners o = {.fs = fs};

	if (found->what == UM_FOUND_NODE && found->ino)
		gather_owner(&o, found->ino, 0, false);
	while (found->what == UM_FOUND_DATA && !scan.done &&
		!umbra_lba_owners(fs, &scan, UINT32_MAX, gather_owner, &o))
		;
	drop_nameless(&o);
	find_paths(&o);
	return encode(&o, event);
}
