/* SPDX-License-Identifier: BSD-3-Clause */
/* Directory entries: each by itself during the first walk; then, once all inodes are known, where
 * they lead. */
#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "fs/name.h"
#include "heal/check_int.h"

/* ---- an entry in itself --------------------------------------------------------------------------- */

static bool seen_name(struct um_dir_names *names, uint64_t hash, const char *name, uint8_t len)
{
	unsigned i;

	if (names->hash != hash)
		names->n = 0;
	names->hash = hash;
	for (i = 0; i < names->n; i++)
		if (names->len[i] == len && !memcmp(names->name[i], name, len))
			return true;
	if (names->n < 16) {
		memcpy(names->name[names->n], name, len);
		names->len[names->n++] = len;
	}
	return false;
}

static const char *entry_fault(struct um_walk *w, uint64_t key, const uint8_t *val, uint16_t len)
{
	const struct um_dirent *entry = (const struct um_dirent *)val;

	if (len <= sizeof(*entry) || !entry->namelen || len != sizeof(*entry) + entry->namelen)
		return "wrong length";
	if (memchr(entry->name, 0, entry->namelen) || memchr(entry->name, '/', entry->namelen))
		return "impossible name";
	if (entry->name[0] == '.' &&
		(entry->namelen == 1 || (entry->namelen == 2 && entry->name[1] == '.')))
		return "named \".\" or \"..\"";
	if (!entry->ino)
		return "without an inode";
	if (um_dir_key(w->c->pool, entry->name, entry->namelen) != (key & ~15ull))
		return "name does not match its hash";
	if (seen_name(w->arg, key >> 4, entry->name, entry->namelen))
		return "duplicate name";
	return NULL;
}

enum um_verdict um_check_dirent(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	const char *why = entry_fault(w, key, val, *len);

	if (!why)
		return UM_KEEP;
	um_problem(w->c, "dirent", UM_CURE_FULL, "directory %llu: entry at %llx: %s",
		(unsigned long long)w->ino, (unsigned long long)key, why);
	return UM_DROP;
}

/* ---- where it leads --------------------------------------------------------------------------------- */

/* State of the walk over all directories. */
struct look {
	struct um_dir_info *dir;
	bool second; /* the second walk, which removes superfluous entries */
};

static void name_of(const uint8_t *val, char out[256])
{
	const struct um_dirent *entry = (const struct um_dirent *)val;
	unsigned i;

	for (i = 0; i < entry->namelen && i < 255; i++)
		out[i] = entry->name[i] < ' ' || entry->name[i] == 127 ? '?' : entry->name[i];
	out[i] = 0;
}

static enum um_verdict drop_entry(
	struct um_walk *w, const uint8_t *val, const char *code, const char *why)
{
	const struct um_dirent *entry = (const struct um_dirent *)val;
	char name[256];

	name_of(val, name);
	um_problem(w->c, code, UM_CURE_FULL, "directory %llu: entry \"%s\" for inode %llu: %s",
		(unsigned long long)w->ino, name, (unsigned long long)entry->ino, why);
	return UM_DROP;
}

/* An entry for a directory: the one in its parent counts, else the first found. */
static void meet_dir(struct um_check *c, struct um_ino_info *info, um_ino_t parent)
{
	struct um_dir_info *dir = &c->dir[info->dir];

	if (!dir->parent || (dir->parent != dir->stored && parent == dir->stored))
		dir->parent = parent;
}

static enum um_verdict lead_record(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	struct um_dirent *entry = (struct um_dirent *)val;
	struct look *look = w->arg;
	struct um_check *c = w->c;
	struct um_ino_info *info;
	char name[256];

	(void)key;
	if (*len <= sizeof(*entry) || *len != sizeof(*entry) + entry->namelen)
		return UM_DROP; /* reported in the first walk */
	info = um_ino_find(c, entry->ino);
	if (!info)
		return drop_entry(w, val, "dirent", "there is no such inode");
	if (info->ino == UM_ROOT_INO || info->ino == w->ino)
		return drop_entry(w, val, "loop", "a directory within itself");
	look->dir->have++;
	info->entries++;
	if (info->type == DT_DIR)
		meet_dir(c, info, w->ino);
	if (entry->type == info->type)
		return UM_KEEP;
	name_of(val, name);
	um_problem(c, "dirent", UM_CURE_FULL,
		"directory %llu: entry \"%s\" has type %u, inode %llu has %u",
		(unsigned long long)w->ino, name, entry->type, (unsigned long long)entry->ino,
		info->type);
	entry->type = info->type;
	return UM_CHANGED;
}

/* Second walk: of several entries of a directory one stays. */
static enum um_verdict single_record(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	const struct um_dirent *entry = (const struct um_dirent *)val;
	struct look *look = w->arg;
	struct um_check *c = w->c;
	struct um_ino_info *info;
	struct um_dir_info *dir;

	(void)key;
	if (*len <= sizeof(*entry) || *len != sizeof(*entry) + entry->namelen)
		return UM_DROP;
	info = um_ino_find(c, entry->ino);
	if (!info || info->ino == UM_ROOT_INO || info->ino == w->ino)
		return UM_DROP;
	if (info->type != DT_DIR)
		return UM_KEEP;
	dir = &c->dir[info->dir];
	if (dir->parent == w->ino && !dir->once) {
		dir->once = true;
		return UM_KEEP;
	}
	look->dir->have--;
	info->entries--;
	return drop_entry(w, val, dir->parent ? "dirent" : "loop",
		dir->parent ? "the directory has another place" : "part of a loop of directories");
}

/* ---- all directories ----------------------------------------------------------------------------------- */

static enum um_verdict dir_record(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	struct um_ino_info *info = um_ino_find(w->c, key);
	struct look *look = w->arg;
	struct um_walk below = {.c = w->c,
		.kind = UM_KIND_DIR,
		.ino = key,
		.record = look->second ? single_record : lead_record,
		.arg = look};
	struct um_inode_core core;

	/* What the first walk repaired only in its copy is left out. */
	if (!info || info->type != DT_DIR || *len < sizeof(core))
		return UM_KEEP;
	memcpy(&core, val, sizeof(core));
	if (sizeof(core) + core.data.len + core.xattr.len != *len || core.data.len > UM_INLINE_MAX)
		return UM_KEEP;
	look->dir = &w->c->dir[info->dir];
	if (um_walk_tree(&below, &core.data, val + sizeof(core)) == UM_KEEP)
		return UM_KEEP;
	if (core.data.format == UM_ROOT_EMPTY && !core.data.len) {
		/* The embedded leaf is gone: the xattr fork moves up. */
		memmove(val + sizeof(core), val + *len - core.xattr.len, core.xattr.len);
		*len = (uint16_t)(sizeof(core) + core.xattr.len);
	}
	memcpy(val, &core, sizeof(core));
	return UM_CHANGED;
}

static void walk_dirs(struct um_check *c, bool second)
{
	struct look look = {.second = second};
	struct um_root root = c->root.inodes;
	struct um_walk w = {.c = c, .kind = UM_KIND_INODES, .record = dir_record, .arg = &look};

	um_walk_again(c);
	if (um_walk_tree(&w, &root, NULL) != UM_KEEP) {
		c->root.inodes = root;
		c->root_dirty = true;
	}
}

/* Directories that form a loop: one of each loop loses its place. Every directory is visited once:
 * one that is visited again in the same search is a loop, one left by an earlier search is not. */
static bool cut_loops(struct um_check *c)
{
	bool any = false;
	size_t i;

	for (i = 0; i < c->ndir; i++) {
		struct um_dir_info *dir = &c->dir[i];

		while (dir && !dir->state && dir->parent) {
			struct um_ino_info *up = um_ino_find(c, dir->parent);

			dir->state = (uint32_t)i + 1;
			dir = up && up->type == DT_DIR ? &c->dir[up->dir] : NULL;
		}
		if (dir && dir->state == (uint32_t)i + 1) {
			dir->parent = 0;
			any = true;
		}
		if (dir && !dir->state)
			dir->state = (uint32_t)i + 1;
	}
	return any;
}

void um_check_entries(struct um_check *c)
{
	bool again;
	size_t i;

	walk_dirs(c, false);
	again = cut_loops(c);
	for (i = 0; i < c->nino && !again; i++)
		again = c->ino[i].type == DT_DIR && c->ino[i].entries > 1;
	if (again && !c->err)
		walk_dirs(c, true);
}
