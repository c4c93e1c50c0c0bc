/* SPDX-License-Identifier: BSD-3-Clause */
/* Directories: a tree from name hash to entry. The key of an entry is its telldir(3) position as
 * long as it exists, whatever is added or removed around it. */
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "fs/name.h"

/* The last of the 16 keys of one hash is unused, so that the position after the largest key is
 * still positive as a signed 64-bit number. */
#define SAME_HASH_MAX 15u
#define READDIR_BATCH 64u

uint64_t um_name_hash(const struct um_pool *pool, const char *name, size_t len)
{
	return XXH3_64bits_withSeed(name, len, pool->super.hash_seed);
}

uint64_t um_dir_key(const struct um_pool *pool, const char *name, size_t len)
{
	uint64_t hash = um_name_hash(pool, name, len) >> 5;

	return (hash ? hash : 1) << 4;
}

/* The entry in a value, which is unaligned; NULL if it is invalid. */
static const struct um_dirent *entry_of(const void *val, uint16_t len)
{
	const struct um_dirent *entry = val;

	if (len <= sizeof(*entry) || len != sizeof(*entry) + entry->namelen || !entry->ino)
		return NULL;
	if (memchr(entry->name, '/', entry->namelen) || memchr(entry->name, 0, entry->namelen))
		return NULL;
	return entry;
}

static int unsound(um_ino_t dir, uint64_t key)
{
	um_err("directory %llu: invalid entry at %#llx", (unsigned long long)dir,
		(unsigned long long)key);
	return -EUCLEAN;
}

static int dir_check(const struct um_pool *pool, uint64_t key, const void *val, uint16_t len)
{
	(void)pool;
	return key >> 4 && !(key >> 63) && entry_of(val, len) ? 0 : -EUCLEAN;
}

const struct um_tree_type um_dir_type = {
	.kind = UM_KIND_DIR,
	.embed_max = UM_INLINE_MAX,
	.check = dir_check,
};

/* ---- entries by name -------------------------------------------------------------------------------- */

struct finder {
	um_ino_t dir;
	const char *name;
	size_t len;
	struct um_dent *out; /* or NULL */
	uint32_t used;       /* bit n: key n of this hash is taken */
};

static int find_visit(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct finder *finder = arg;
	const struct um_dirent *entry = entry_of(val, len);

	if (!entry)
		return unsound(finder->dir, key);
	finder->used |= 1u << (key & 15);
	if (entry->namelen != finder->len || memcmp(entry->name, finder->name, finder->len))
		return 0;
	if (finder->out) {
		finder->out->key = key;
		finder->out->ino = entry->ino;
		finder->out->type = entry->type;
	}
	return 1;
}

/* 1 found, 0 not. */
static int find(struct um_src src, const struct um_tree *tree, struct finder *finder)
{
	uint64_t key = um_dir_key(src.pool, finder->name, finder->len);

	return um_tree_walk(src, tree, key, key | 15, find_visit, finder);
}

int um_dir_find(struct um_src src, const struct um_inode *dir, const char *name, size_t len,
	struct um_dent *out)
{
	struct finder finder = {.dir = dir->ino, .name = name, .len = len, .out = out};
	struct um_tree tree;
	int ret;

	um_inode_tree(dir, UM_FORK_DATA, &tree);
	ret = find(src, &tree, &finder);
	if (ret < 0)
		return ret;
	return ret ? 0 : -ENOENT;
}

/* A value being built: the head and the longest name. */
struct entry_buf {
	uint8_t bytes[sizeof(struct um_dirent) + UMBRA_NAME_MAX];
	uint16_t len;
};

static void entry_fill(
	struct entry_buf *buf, const char *name, size_t len, const struct um_inode *child)
{
	struct um_dirent *entry = (struct um_dirent *)buf->bytes;

	entry->ino = child->ino;
	entry->type = IFTODT(child->core.mode);
	entry->namelen = (uint8_t)len;
	memcpy(entry->name, name, len);
	buf->len = (uint16_t)(sizeof(*entry) + len);
}

int um_dir_add(struct um_txn *txn, struct um_inode *dir, const char *name, size_t len,
	const struct um_inode *child)
{
	struct finder finder = {.dir = dir->ino, .name = name, .len = len};
	struct entry_buf buf;
	struct um_tree tree;
	unsigned n = 0;
	int ret;

	um_inode_tree(dir, UM_FORK_DATA, &tree);
	ret = find(um_txn_src(txn), &tree, &finder);
	if (ret)
		return ret < 0 ? ret : -EEXIST;
	while (n < SAME_HASH_MAX && finder.used & 1u << n)
		n++;
	if (n == SAME_HASH_MAX)
		return -ENOSPC;
	entry_fill(&buf, name, len, child);
	ret = um_tree_insert(
		txn, &tree, um_dir_key(um_txn_pool(txn), name, len) | n, buf.bytes, buf.len);
	if (ret)
		return ret;
	if (tree.dirty)
		um_inode_set_tree(dir, UM_FORK_DATA, &tree);
	dir->core.size++;
	return 0;
}

int um_dir_remove(struct um_txn *txn, struct um_inode *dir, uint64_t key)
{
	struct um_tree tree;
	int ret;

	um_inode_tree(dir, UM_FORK_DATA, &tree);
	ret = um_tree_delete(txn, &tree, key);
	if (ret)
		return ret;
	if (tree.dirty)
		um_inode_set_tree(dir, UM_FORK_DATA, &tree);
	if (dir->core.size)
		dir->core.size--;
	return 0;
}

int um_dir_point(struct um_txn *txn, struct um_inode *dir, uint64_t key, const char *name,
	size_t len, const struct um_inode *child)
{
	struct entry_buf buf;
	struct um_tree tree;
	int ret;

	entry_fill(&buf, name, len, child);
	um_inode_tree(dir, UM_FORK_DATA, &tree);
	ret = um_tree_replace(txn, &tree, key, buf.bytes, buf.len);
	if (!ret && tree.dirty)
		um_inode_set_tree(dir, UM_FORK_DATA, &tree);
	return ret;
}

int um_dir_empty(struct um_src src, const struct um_inode *dir)
{
	struct um_tree tree;
	uint64_t key;
	uint16_t len;
	int ret;

	um_inode_tree(dir, UM_FORK_DATA, &tree);
	ret = um_tree_find(src, &tree, 0, UM_SEEK_GE, &key, NULL, 0, &len);
	if (ret == -ENOENT)
		return 0;
	return ret ? ret : -ENOTEMPTY;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

struct entry {
	uint64_t pos; /* after this entry */
	um_ino_t ino;
	uint8_t type;
	char name[UMBRA_NAME_MAX + 1];
};

struct batch {
	um_ino_t dir, parent;
	unsigned n;
	struct entry entry[READDIR_BATCH];
};

static void batch_add(
	struct batch *batch, uint64_t pos, um_ino_t ino, uint8_t type, const char *name, size_t len)
{
	struct entry *entry = &batch->entry[batch->n++];

	entry->pos = pos;
	entry->ino = ino;
	entry->type = type;
	memcpy(entry->name, name, len);
	entry->name[len] = 0;
}

static int batch_visit(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct batch *batch = arg;
	const struct um_dirent *entry = entry_of(val, len);

	if (!entry)
		return unsound(batch->dir, key);
	batch_add(batch, key + 1, entry->ino, entry->type, entry->name, entry->namelen);
	return batch->n == READDIR_BATCH;
}

static int batch_read(struct umbra_fs *fs, um_ino_t ino, uint64_t pos, struct batch *batch)
{
	struct um_inode dir;
	struct um_tree tree;
	int ret;

	batch->n = 0;
	um_log_read_lock(fs->log);
	ret = um_inode_load(um_fs_src(fs), ino, &dir);
	if (!ret && !S_ISDIR(dir.core.mode))
		ret = -ENOTDIR;
	if (!ret) {
		if (pos < 1)
			batch_add(batch, 1, ino, DT_DIR, ".", 1);
		if (pos < 2)
			batch_add(batch, 2, dir.core.parent, DT_DIR, "..", 2);
		um_inode_tree(&dir, UM_FORK_DATA, &tree);
		ret = um_tree_walk(um_fs_src(fs), &tree, pos, INT64_MAX, batch_visit, batch);
	}
	um_log_read_unlock(fs->log);
	return ret < 0 ? ret : 0;
}

int umbra_readdir(
	struct umbra_fs *fs, uint64_t dir, uint64_t cookie, umbra_dirent_fn *fn, void *arg)
{
	struct batch batch = {.dir = dir};
	unsigned i;
	int ret;

	if (cookie > INT64_MAX)
		return -EINVAL;
	if (!cookie && !fs->opt.nodiratime)
		um_atime_update(fs, dir);
	do {
		ret = um_fs_alive(fs);
		if (!ret)
			ret = batch_read(fs, dir, cookie, &batch);
		if (ret)
			return ret;
		for (i = 0; i < batch.n; i++) {
			const struct entry *entry = &batch.entry[i];

			if (fn(arg, entry->name, entry->ino, entry->type, entry->pos))
				return 0;
			cookie = entry->pos;
		}
	} while (batch.n >= READDIR_BATCH);
	return 0;
}
