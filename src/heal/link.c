/* SPDX-License-Identifier: BSD-3-Clause */
/* Checks that need all entries: inodes that nothing leads to, orphan records that do not fit their
 * inodes, link counts, parents, the numbers of entries. */
#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "heal/check_int.h"

/* ---- orphans --------------------------------------------------------------------------------------- */

static enum um_verdict orphan_record(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	struct um_check *c = w->c;
	struct um_orphan orphan;

	if (*len == sizeof(orphan))
		memcpy(&orphan, val, sizeof(orphan));
	if (!key || *len != sizeof(orphan) || orphan.what < UM_ORPHAN_UNLINKED ||
		orphan.what > UM_ORPHAN_TMPFILE ||
		(c->norphan && key <= c->orphan[c->norphan - 1].ino)) {
		um_problem(c, "orphan", UM_CURE_FULL, "orphan record %llu is invalid",
			(unsigned long long)key);
		return UM_DROP;
	}
	if (!um_grow(c, &c->orphan, c->norphan, &c->caporphan, sizeof(*c->orphan)))
		return UM_KEEP;
	c->orphan[c->norphan++] =
		(struct um_orphan_info){.ino = key, .what = orphan.what, .arg = orphan.arg};
	return UM_KEEP;
}

void um_check_orphans_load(struct um_check *c)
{
	struct um_walk w = {
		.c = c, .kind = UM_KIND_ORPHANS, .count = true, .record = orphan_record};

	if (um_walk_tree(&w, &c->root.orphans, NULL) != UM_KEEP)
		c->root_dirty = true;
}

static const char *orphan_fault(
	struct um_check *c, const struct um_orphan_info *orphan, const struct um_ino_info *info)
{
	if (!info)
		return "there is no such inode";
	if (orphan->what == UM_ORPHAN_TRUNCATE)
		return info->type == DT_REG ? NULL : "truncation of what is no file";
	if (info->entries)
		return "the inode has a name";
	if (info->type == DT_DIR && c->dir[info->dir].have)
		return "the directory is not empty";
	return info->ino == UM_ROOT_INO ? "it is the root directory" : NULL;
}

static enum um_verdict cross_record(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	struct um_check *c = w->c;
	struct um_orphan_info *orphan = um_orphan_find(c, key);
	struct um_ino_info *info = um_ino_find(c, key);
	const char *why;

	(void)val;
	(void)len;
	if (!orphan)
		return UM_DROP;
	why = orphan_fault(c, orphan, info);
	if (!why)
		return UM_KEEP;
	um_problem(c, "orphan", UM_CURE_FULL, "orphan record of inode %llu: %s",
		(unsigned long long)key, why);
	if (info)
		info->flags &= (uint8_t)~UM_INFO_ORPHAN;
	return UM_DROP;
}

static void check_orphans(struct um_check *c)
{
	struct um_walk w = {.c = c, .kind = UM_KIND_ORPHANS, .record = cross_record};

	if (!c->norphan)
		return;
	um_walk_again(c);
	if (um_walk_tree(&w, &c->root.orphans, NULL) != UM_KEEP)
		c->root_dirty = true;
}

/* ---- reach ------------------------------------------------------------------------------------------ */

static void find_unreachable(struct um_check *c)
{
	size_t i;

	for (i = 0; i < c->nino; i++) {
		struct um_ino_info *info = &c->ino[i];

		if (info->entries || info->ino == UM_ROOT_INO || info->flags & UM_INFO_ORPHAN)
			continue;
		info->flags |= UM_INFO_RELINK;
		c->nrelink++;
		um_problem(c, "unreachable", UM_CURE_FULL,
			"inode %llu has no name: to be linked as /lost+found/#%llu",
			(unsigned long long)info->ino, (unsigned long long)info->ino);
	}
	if (c->nino && c->ino[0].ino == UM_ROOT_INO)
		return;
	c->need_root_dir = true;
	um_problem(c, "root", UM_CURE_FULL, "there is no root directory");
}

static void count_subdirs(struct um_check *c)
{
	struct um_ino_info *up;
	size_t i;

	for (i = 0; i < c->ndir; i++) {
		up = c->dir[i].parent ? um_ino_find(c, c->dir[i].parent) : NULL;
		if (up && up->type == DT_DIR)
			c->dir[up->dir].subdirs++;
	}
}

/* ---- fields ------------------------------------------------------------------------------------------ */

/* The link count that the record should have; false: it is linked anew after this pass, which sets
 * it. */
static bool want_nlink(const struct um_check *c, const struct um_ino_info *info, uint32_t *out)
{
	if (info->flags & UM_INFO_RELINK)
		return false;
	if (info->flags & UM_INFO_ORPHAN)
		*out = 0;
	else
		*out = info->type == DT_DIR ? 2 + c->dir[info->dir].subdirs : info->entries;
	return true;
}

static uint64_t want_parent(const struct um_check *c, const struct um_ino_info *info)
{
	const struct um_dir_info *dir = &c->dir[info->dir];

	if (info->ino == UM_ROOT_INO)
		return UM_ROOT_INO;
	if (dir->parent)
		return dir->parent;
	return dir->stored ? dir->stored : UM_ROOT_INO;
}

static bool check_fields(struct um_check *c, const struct um_ino_info *info)
{
	const struct um_dir_info *dir;
	bool edit = false;
	uint32_t nlink;

	if (want_nlink(c, info, &nlink) && nlink != info->nlink)
		edit |= um_problem(c, "nlink", UM_CURE_FULL,
			"inode %llu has %u links, its record says %u",
			(unsigned long long)info->ino, nlink, info->nlink);
	if (info->type != DT_DIR)
		return edit;
	dir = &c->dir[info->dir];
	if (want_parent(c, info) != dir->stored)
		edit |= um_problem(c, "parent", UM_CURE_FULL,
			"directory %llu is in directory %llu, its record says %llu",
			(unsigned long long)info->ino, (unsigned long long)want_parent(c, info),
			(unsigned long long)dir->stored);
	if (dir->have != dir->size)
		edit |= um_problem(c, "size", UM_CURE_FULL,
			"directory %llu has %llu entries, its record says %llu",
			(unsigned long long)info->ino, (unsigned long long)dir->have,
			(unsigned long long)dir->size);
	return edit;
}

static enum um_verdict field_record(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	struct um_check *c = w->c;
	struct um_ino_info *info = um_ino_find(c, key);
	struct um_inode_core core;

	if (!info || *len < sizeof(core))
		return UM_KEEP;
	memcpy(&core, val, sizeof(core));
	want_nlink(c, info, &core.nlink);
	if (info->type == DT_DIR) {
		core.parent = want_parent(c, info);
		core.size = c->dir[info->dir].have;
	}
	if (!memcmp(&core, val, sizeof(core)))
		return UM_KEEP;
	memcpy(val, &core, sizeof(core));
	return UM_CHANGED;
}

static void check_counters(struct um_check *c)
{
	if (c->root.ninodes != c->nino &&
		um_problem(c, "counter", UM_CURE_FULL,
			"the pool root counts %llu inodes, there are %llu",
			(unsigned long long)c->root.ninodes, (unsigned long long)c->nino)) {
		c->root.ninodes = c->nino;
		c->root_dirty = true;
	}
	if ((c->root.next_ino <= c->max_ino || c->root.next_ino < UM_FIRST_INO ||
		    c->root.next_ino > INT64_MAX) &&
		um_problem(c, "counter", UM_CURE_FULL,
			"next inode number is %llu, the largest in use %llu",
			(unsigned long long)c->root.next_ino, (unsigned long long)c->max_ino)) {
		c->root.next_ino = c->max_ino < UM_FIRST_INO ? UM_FIRST_INO : c->max_ino + 1;
		c->root_dirty = true;
	}
}

void um_check_links(struct um_check *c)
{
	struct um_walk w = {.c = c, .kind = UM_KIND_INODES, .record = field_record};
	bool edit = false;
	size_t i;

	check_orphans(c);
	find_unreachable(c);
	count_subdirs(c);
	for (i = 0; i < c->nino; i++)
		edit = check_fields(c, &c->ino[i]) || edit;
	check_counters(c);
	if (!edit || c->err)
		return;
	um_walk_again(c);
	if (um_walk_tree(&w, &c->root.inodes, NULL) != UM_KEEP)
		c->root_dirty = true;
}
