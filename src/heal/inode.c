/* SPDX-License-Identifier: BSD-3-Clause */
/* The first walk of the inode tree: every record by itself, with its extents, entries and
 * xattrs. */
#include <errno.h>
#include <string.h>

#include "fs/data.h"
#include "heal/check_int.h"

/* A decoded record. */
struct record {
	struct um_check *c;
	um_ino_t ino;
	struct um_inode_core core;
	uint8_t data[UM_INLINE_MAX] __attribute__((aligned(8)));
	uint8_t xattr[UM_XATTR_EMBED_MAX] __attribute__((aligned(8)));
	bool changed;
};

/* A problem of this inode, because of which the record is changed, here and (if repairing) in the
 * pool. */
#define fault(rec, code, fmt, ...)                                                                 \
	do {                                                                                       \
		um_problem((rec)->c, code, UM_CURE_FULL, "inode %llu: " fmt,                       \
			(unsigned long long)(rec)->ino, ##__VA_ARGS__);                            \
		(rec)->changed = true;                                                             \
	} while (0)

/* ---- extents --------------------------------------------------------------------------------------- */

static bool extent_fault(struct um_check *c, const struct um_extent *e, uint64_t key, uint64_t end)
{
	um_lba_t lba = e->addr & UM_LBA_MASK;

	return !e->len || e->len > UM_CHUNK_BLOCKS || e->pad ||
	       e->addr & ~(UM_LBA_MASK | UM_EXTENT_UNWRITTEN) || key >= UM_FILE_BLOCKS ||
	       e->len > UM_FILE_BLOCKS - key || key < end || !um_lba_usable(c, lba, e->len) ||
	       um_chunk_of(lba) != um_chunk_of(lba + e->len - 1);
}

/* How much of the extent, from its start on, is only data. */
static uint32_t extent_sound(struct um_check *c, um_lba_t lba, uint32_t len)
{
	uint32_t i, n = um_counts_free_of_meta(&c->counts, lba, len);

	for (i = 0; c->claims.n && i < n; i++)
		if (um_map_get(&c->claims, lba + i, NULL))
			return i;
	return n;
}

static enum um_verdict extent_record(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	struct um_check *c = w->c;
	enum um_verdict verdict = UM_KEEP;
	struct um_extent e;
	uint32_t n;

	if (*len != sizeof(e))
		return UM_DROP;
	memcpy(&e, val, sizeof(e));
	if (extent_fault(c, &e, key, w->end)) {
		um_problem(c, "extent", UM_CURE_FULL,
			"inode %llu: extent at file block %llu (%u blocks at %llu) is impossible",
			(unsigned long long)w->ino, (unsigned long long)key, e.len,
			(unsigned long long)(e.addr & UM_LBA_MASK));
		return UM_DROP;
	}
	n = extent_sound(c, e.addr & UM_LBA_MASK, e.len);
	if (n < e.len) {
		um_problem(c, "conflict", UM_CURE_FULL,
			"inode %llu: block %llu at file block %llu is metadata",
			(unsigned long long)w->ino,
			(unsigned long long)((e.addr & UM_LBA_MASK) + n),
			(unsigned long long)(key + n));
		if (!n)
			return UM_DROP;
		e.len = n;
		memcpy(val, &e, sizeof(e));
		verdict = UM_CHANGED;
	}
	if (um_counts_data(&c->counts, e.addr & UM_LBA_MASK, e.len))
		c->err = -ENOMEM;
	if (key < *(const uint64_t *)w->arg)
		w->blocks += e.len;
	w->extents++;
	w->end = key + e.len;
	if (!(e.addr & UM_EXTENT_UNWRITTEN))
		w->written = w->end;
	if ((um_has_csum(c->pool) || um_has_parity(c->pool)) && !(e.addr & UM_EXTENT_UNWRITTEN) &&
		um_counts_write(&c->counts, e.addr & UM_LBA_MASK, e.len))
		c->err = -ENOMEM;
	return verdict;
}

/*
 * The file block from which on the record's `blocks` does not count: what an unfinished truncation
 * still has to drop is no longer counted, and of a removed file nothing is once its blocks begin to
 * go.
 */
static uint64_t counted_below(struct um_check *c, const struct record *rec)
{
	const struct um_orphan_info *orphan = um_orphan_find(c, rec->ino);

	if (!orphan)
		return UINT64_MAX;
	if (orphan->what == UM_ORPHAN_TRUNCATE)
		return orphan->arg;
	if (orphan->what == UM_ORPHAN_TMPFILE)
		return orphan->arg ? orphan->arg - 1 : UINT64_MAX;
	return rec->core.blocks ? UINT64_MAX : 0;
}

static void check_extents(struct record *rec)
{
	uint64_t below = counted_below(rec->c, rec);
	struct um_walk w = {.c = rec->c,
		.kind = UM_KIND_EXTENTS,
		.ino = rec->ino,
		.count = true,
		.share = true,
		.record = extent_record,
		.arg = &below};

	if (um_walk_tree(&w, &rec->core.data, rec->data) != UM_KEEP)
		rec->changed = true;
	rec->c->report->extents += w.extents;
	if (rec->core.blocks != w.blocks) {
		fault(rec, "blocks", "record says %llu blocks, there are %llu",
			(unsigned long long)rec->core.blocks, (unsigned long long)w.blocks);
		rec->core.blocks = w.blocks;
	}
	um_check_tail(rec->c, rec->ino, &rec->core, rec->data, w.written);
}

static void check_entries(struct record *rec)
{
	struct um_dir_names names = {0};
	struct um_walk w = {.c = rec->c,
		.kind = UM_KIND_DIR,
		.ino = rec->ino,
		.count = true,
		.record = um_check_dirent,
		.arg = &names};

	if (um_walk_tree(&w, &rec->core.data, rec->data) != UM_KEEP)
		rec->changed = true;
}

/* ---- the record -------------------------------------------------------------------------------------- */

static void empty_fork(struct record *rec, struct um_root *root, const char *which, const char *why)
{
	fault(rec, "inode", "%s fork dropped: %s", which, why);
	memset(root, 0, sizeof(*root));
}

static const char *fork_fault(const struct um_root *root, size_t room)
{
	switch (root->format) {
	case UM_ROOT_EMPTY:
		return root->len ? "empty, with a length" : NULL;
	case UM_ROOT_INLINE:
		return root->len > UM_INLINE_MAX || root->len > room ? "too long" : NULL;
	case UM_ROOT_EMBED:
		return root->len > UM_INLINE_MAX || root->len > room ? "too long" : NULL;
	case UM_ROOT_NODE:
		return root->len || root->level >= UM_TREE_LEVELS ? "impossible root" : NULL;
	default:
		return "unknown format";
	}
}

/* Splits the value into core and forks; false: too short to be a record. */
static bool take_apart(struct record *rec, const uint8_t *val, uint16_t len)
{
	struct um_inode_core *core = &rec->core;
	const char *why;
	size_t room;

	if (len < sizeof(*core))
		return false;
	memcpy(core, val, sizeof(*core));
	val += sizeof(*core);
	room = len - sizeof(*core);
	why = fork_fault(&core->data, room);
	if (why) {
		/* Then it is also unknown where the other fork's bytes begin. */
		empty_fork(rec, &core->data, "data", why);
		if (core->xattr.format != UM_ROOT_NODE && core->xattr.format != UM_ROOT_EMPTY)
			empty_fork(rec, &core->xattr, "xattr", "its place is lost");
		room = 0;
	}
	memcpy(rec->data, val, core->data.len);
	val += core->data.len;
	room -= why ? 0 : core->data.len;
	why = fork_fault(&core->xattr, room);
	if (!why && core->xattr.format == UM_ROOT_INLINE)
		why = "inline";
	if (why)
		empty_fork(rec, &core->xattr, "xattr", why);
	memcpy(rec->xattr, val, core->xattr.len);
	if (len != sizeof(*core) + core->data.len + core->xattr.len && !rec->changed)
		fault(rec, "inode", "record is longer than its parts");
	return true;
}

static uint16_t put_together(const struct record *rec, uint8_t *val)
{
	const struct um_inode_core *core = &rec->core;

	memcpy(val, core, sizeof(*core));
	memcpy(val + sizeof(*core), rec->data, core->data.len);
	memcpy(val + sizeof(*core) + core->data.len, rec->xattr, core->xattr.len);
	return (uint16_t)(sizeof(*core) + core->data.len + core->xattr.len);
}

static void check_time(struct record *rec, struct um_time *time, const char *which)
{
	if (time->nsec < 1000000000u && !time->pad)
		return;
	fault(rec, "inode", "%s has %u nanoseconds", which, time->nsec);
	time->nsec = 0;
	time->pad = 0;
}

static void check_regular(struct record *rec)
{
	struct um_inode_core *core = &rec->core;

	if (core->size > UMBRA_SIZE_MAX) {
		fault(rec, "size", "size %llu is impossible", (unsigned long long)core->size);
		core->size = core->data.format == UM_ROOT_INLINE ? core->data.len : UMBRA_SIZE_MAX;
	}
	if (core->data.format == UM_ROOT_INLINE && core->data.len > core->size) {
		fault(rec, "size", "size %llu is less than its inline data",
			(unsigned long long)core->size);
		core->size = core->data.len;
	}
	check_extents(rec);
}

/* Only these can be in the record for this type; false: nothing to keep. */
static bool check_symlink(struct record *rec)
{
	struct um_inode_core *core = &rec->core;

	if (core->data.format == UM_ROOT_INLINE && core->data.len) {
		if (core->size == core->data.len && !memchr(rec->data, 0, core->data.len))
			return true;
		if (memchr(rec->data, 0, core->data.len)) {
			fault(rec, "inode", "symlink target has a NUL in it");
			return false;
		}
		fault(rec, "size", "symlink has size %llu, target %u",
			(unsigned long long)core->size, core->data.len);
		core->size = core->data.len;
		return true;
	}
	if (core->data.format == UM_ROOT_EMPTY && core->size > UM_INLINE_MAX &&
		core->size <= UMBRA_SYMLINK_MAX && core->xattr.format != UM_ROOT_EMPTY)
		return true;
	fault(rec, "inode", "symlink without a target");
	return false;
}

static void check_directory(struct record *rec)
{
	struct um_inode_core *core = &rec->core;

	if (core->data.format == UM_ROOT_INLINE)
		empty_fork(rec, &core->data, "data", "inline in a directory");
	if (core->blocks) {
		fault(rec, "blocks", "directory with %llu data blocks",
			(unsigned long long)core->blocks);
		core->blocks = 0;
	}
	check_entries(rec);
}

static bool check_by_type(struct record *rec)
{
	struct um_inode_core *core = &rec->core;

	if (rec->ino == UM_ROOT_INO && !S_ISDIR(core->mode)) {
		fault(rec, "inode", "the root directory has mode %o", core->mode);
		return false;
	}
	switch (core->mode & S_IFMT) {
	case S_IFREG:
		check_regular(rec);
		return true;
	case S_IFDIR:
		check_directory(rec);
		return true;
	case S_IFLNK:
		return check_symlink(rec);
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		if (core->data.format != UM_ROOT_EMPTY)
			empty_fork(rec, &core->data, "data", "special file");
		return true;
	default:
		fault(rec, "inode", "unknown file type, mode %o", core->mode);
		return false;
	}
}

/* ---- what later steps want to know ------------------------------------------------------------------- */

static void note_dir(struct um_check *c, const struct record *rec, struct um_ino_info *info)
{
	if (!um_grow(c, &c->dir, c->ndir, &c->capdir, sizeof(*c->dir)))
		return;
	info->dir = (uint32_t)c->ndir;
	c->dir[c->ndir++] = (struct um_dir_info){
		.ino = rec->ino, .stored = rec->core.parent, .size = rec->core.size};
	c->report->directories++;
}

static void note_inode(struct um_check *c, const struct record *rec)
{
	struct um_orphan_info *orphan = um_orphan_find(c, rec->ino);
	struct um_ino_info info = {.ino = rec->ino,
		.nlink = rec->core.nlink,
		.type = (uint8_t)((rec->core.mode & S_IFMT) >> 12)};

	if (orphan && orphan->what != UM_ORPHAN_TRUNCATE)
		info.flags |= UM_INFO_ORPHAN;
	if (S_ISDIR(rec->core.mode))
		note_dir(c, rec, &info);
	else if (S_ISREG(rec->core.mode))
		c->report->files++;
	if (!um_grow(c, &c->ino, c->nino, &c->capino, sizeof(*c->ino)))
		return;
	c->ino[c->nino++] = info;
	c->max_ino = rec->ino;
	c->report->inodes++;
}

static enum um_verdict inode_record(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	struct record rec = {.c = w->c, .ino = key};
	bool long_link;

	if (!key || key > INT64_MAX || (w->c->nino && key <= w->c->max_ino) ||
		!take_apart(&rec, val, *len)) {
		um_problem(w->c, "inode", UM_CURE_FULL, "inode %llu: invalid record of %u bytes",
			(unsigned long long)key, *len);
		return UM_DROP;
	}
	if (!check_by_type(&rec))
		return UM_DROP;
	check_time(&rec, &rec.core.atime, "atime");
	check_time(&rec, &rec.core.mtime, "mtime");
	check_time(&rec, &rec.core.ctime, "ctime");
	check_time(&rec, &rec.core.btime, "btime");
	long_link = S_ISLNK(rec.core.mode) && rec.core.data.format == UM_ROOT_EMPTY;
	switch (um_check_xattrs(
		w->c, key, &rec.core.xattr, rec.xattr, long_link ? rec.core.size : 0)) {
	case UM_DROP:
		return UM_DROP;
	case UM_CHANGED:
		rec.changed = true;
		break;
	case UM_KEEP:
		break;
	}
	note_inode(w->c, &rec);
	if (!rec.changed)
		return UM_KEEP;
	*len = put_together(&rec, val);
	return UM_CHANGED;
}

void um_check_inodes(struct um_check *c)
{
	struct um_walk w = {.c = c, .kind = UM_KIND_INODES, .count = true, .record = inode_record};

	if (um_walk_tree(&w, &c->root.inodes, NULL) != UM_KEEP)
		c->root_dirty = true;
}
