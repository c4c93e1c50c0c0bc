/* SPDX-License-Identifier: BSD-3-Clause */
/* Extended attributes: a tree from name hash and piece number to pieces of the value. All pieces of
 * an attribute change in one transaction. */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/acl.h"
#include "fs/fs.h"

#define PIECE_BITS 10
#define PIECE_MASK ((1u << PIECE_BITS) - 1)
#define N_SHIFT PIECE_BITS
#define N_MAX 16u /* attributes with the same hash */
#define HASH_SHIFT 14
#define HEAD_MAX (sizeof(struct um_xattr) + UMBRA_NAME_MAX)

static_assert(HEAD_MAX + UM_XATTR_PIECE <= UM_VALUE_MAX, "xattr piece");

uint64_t um_xattr_key(const struct um_pool *pool, const char *name, size_t len)
{
	uint64_t hash = um_name_hash(pool, name, len) >> 15;

	return (hash ? hash : 1) << HASH_SHIFT;
}

static unsigned pieces_of(uint32_t len)
{
	return len ? (len + UM_XATTR_PIECE - 1) / UM_XATTR_PIECE : 1;
}

/* Number of bytes of the value in its piece i. */
static uint32_t piece_len(uint32_t len, unsigned i)
{
	uint32_t off = i * UM_XATTR_PIECE;

	return len - off < UM_XATTR_PIECE ? len - off : UM_XATTR_PIECE;
}

/* The head in piece 0; NULL if it is invalid. */
static const struct um_xattr *head_of(const void *val, uint16_t len)
{
	const struct um_xattr *head = val;
	um_le32_t total;

	if (len <= sizeof(*head) || !head->namelen)
		return NULL;
	memcpy(&total, &head->len, sizeof(total));
	if (total > UM_XATTR_VALUE_MAX ||
		len != sizeof(*head) + head->namelen + piece_len(total, 0) ||
		memchr(head->name, 0, head->namelen))
		return NULL;
	return head;
}

static int xattr_check(const struct um_pool *pool, uint64_t key, const void *val, uint16_t len)
{
	(void)pool;
	if (!(key >> HASH_SHIFT) ||
		key & PIECE_MASK) /* symlink targets and later pieces: raw bytes */
		return len && len <= UM_XATTR_PIECE ? 0 : -EUCLEAN;
	return head_of(val, len) ? 0 : -EUCLEAN;
}

const struct um_tree_type um_xattr_type = {
	.kind = UM_KIND_XATTR,
	.embed_max = UM_XATTR_EMBED_MAX,
	.check = xattr_check,
};

static int unsound(um_ino_t ino, uint64_t key)
{
	um_err("inode %llu: invalid extended attribute at %#llx", (unsigned long long)ino,
		(unsigned long long)key);
	return -EUCLEAN;
}

/* ---- finding ----------------------------------------------------------------------------------------- */

struct finder {
	um_ino_t ino;
	const char *name;
	size_t namelen;
	uint64_t key;  /* of piece 0 */
	uint32_t len;  /* of the value */
	uint32_t used; /* bit n: attribute n of this hash exists */
};

static int find_visit(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct finder *finder = arg;
	const struct um_xattr *head;

	if (key & PIECE_MASK)
		return 0;
	head = head_of(val, len);
	if (!head)
		return unsound(finder->ino, key);
	finder->used |= 1u << ((key >> N_SHIFT) & (N_MAX - 1));
	if (head->namelen != finder->namelen || memcmp(head->name, finder->name, finder->namelen))
		return 0;
	finder->key = key;
	memcpy(&finder->len, &head->len, sizeof(finder->len));
	return 1;
}

/* 1 found, 0 not. */
static int find(struct um_src src, const struct um_tree *tree, um_ino_t ino, const char *name,
	struct finder *finder)
{
	uint64_t key;

	*finder = (struct finder){.ino = ino, .name = name, .namelen = strlen(name)};
	key = um_xattr_key(src.pool, name, finder->namelen);
	return um_tree_walk(src, tree, key, key | ((1u << HASH_SHIFT) - 1), find_visit, finder);
}

/* ---- reading ------------------------------------------------------------------------------------------- */

struct reader {
	const struct finder *found;
	uint8_t *buf;
	unsigned next; /* piece expected */
};

static int read_visit(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct reader *reader = arg;
	const struct finder *found = reader->found;
	uint32_t n = piece_len(found->len, reader->next);
	const uint8_t *bytes = val;

	if (key != found->key + reader->next)
		return unsound(found->ino, key);
	if (!reader->next) {
		bytes += sizeof(struct um_xattr) + found->namelen;
		len -= sizeof(struct um_xattr) + found->namelen;
	}
	if (len != n)
		return unsound(found->ino, key);
	memcpy(reader->buf + reader->next++ * UM_XATTR_PIECE, bytes, n);
	return 0;
}

int um_xattr_get(struct um_src src, const struct um_inode *inode, const char *name, void *buf,
	size_t size, size_t *out_len)
{
	struct finder finder;
	struct reader reader = {.found = &finder, .buf = buf};
	struct um_tree tree;
	int ret;

	if (inode->core.xattr.format == UM_ROOT_EMPTY)
		return -ENODATA;
	um_inode_tree(inode, UM_FORK_XATTR, &tree);
	ret = find(src, &tree, inode->ino, name, &finder);
	if (ret <= 0)
		return ret ? ret : -ENODATA;
	*out_len = finder.len;
	if (!size)
		return 0;
	if (size < finder.len)
		return -ERANGE;
	ret = um_tree_walk(src, &tree, finder.key, finder.key + pieces_of(finder.len) - 1,
		read_visit, &reader);
	if (!ret && reader.next != pieces_of(finder.len))
		ret = unsound(inode->ino, finder.key);
	return ret;
}

/* ---- changing ------------------------------------------------------------------------------------------- */

/* Stores piece i of the value; `have` says whether one exists already. */
static int put_piece(struct um_txn *txn, struct um_tree *tree, const struct finder *at,
	const void *value, uint32_t len, unsigned i, bool have)
{
	uint8_t buf[HEAD_MAX + UM_XATTR_PIECE];
	struct um_xattr *head = (struct um_xattr *)buf;
	uint32_t n = piece_len(len, i), pos = 0;

	if (!i) {
		memset(head, 0, sizeof(*head));
		head->len = len;
		head->namelen = (uint8_t)at->namelen;
		memcpy(head->name, at->name, at->namelen);
		pos = (uint32_t)(sizeof(*head) + at->namelen);
	}
	if (n)
		memcpy(buf + pos, (const uint8_t *)value + (size_t)i * UM_XATTR_PIECE, n);
	if (have)
		return um_tree_replace(txn, tree, at->key + i, buf, (uint16_t)(pos + n));
	return um_tree_insert(txn, tree, at->key + i, buf, (uint16_t)(pos + n));
}

/* Finds a free key for a new attribute. */
static int choose_key(const struct um_pool *pool, struct finder *finder)
{
	unsigned n = 0;

	while (n < N_MAX && finder->used & 1u << n)
		n++;
	if (n == N_MAX)
		return -ENOSPC;
	finder->key = um_xattr_key(pool, finder->name, finder->namelen) | (uint64_t)n << N_SHIFT;
	return 0;
}

int um_xattr_set(struct um_txn *txn, struct um_inode *inode, const char *name, const void *value,
	size_t len, int flags)
{
	unsigned i, n, old = 0;
	struct finder finder;
	struct um_tree tree;
	int ret;

	if (len > UM_XATTR_VALUE_MAX)
		return -E2BIG;
	um_inode_tree(inode, UM_FORK_XATTR, &tree);
	ret = find(um_txn_src(txn), &tree, inode->ino, name, &finder);
	if (ret < 0)
		return ret;
	if (ret && flags & XATTR_CREATE)
		return -EEXIST;
	if (!ret && flags & XATTR_REPLACE)
		return -ENODATA;
	if (ret)
		old = pieces_of(finder.len);
	else if ((ret = choose_key(um_txn_pool(txn), &finder)))
		return ret;
	n = pieces_of((uint32_t)len);
	ret = 0;
	for (i = n; i < old && !ret; i++)
		ret = um_tree_delete(txn, &tree, finder.key + i);
	for (i = 0; i < n && !ret; i++)
		ret = put_piece(txn, &tree, &finder, value, (uint32_t)len, i, i < old);
	if (!ret && tree.dirty)
		um_inode_set_tree(inode, UM_FORK_XATTR, &tree);
	return ret == -ENOENT ? unsound(inode->ino, finder.key) : ret;
}

int um_xattr_remove(struct um_txn *txn, struct um_inode *inode, const char *name)
{
	struct finder finder;
	struct um_tree tree;
	unsigned i;
	int ret;

	if (inode->core.xattr.format == UM_ROOT_EMPTY)
		return -ENODATA;
	um_inode_tree(inode, UM_FORK_XATTR, &tree);
	ret = find(um_txn_src(txn), &tree, inode->ino, name, &finder);
	if (ret <= 0)
		return ret ? ret : -ENODATA;
	ret = 0;
	for (i = 0; i < pieces_of(finder.len) && !ret; i++)
		ret = um_tree_delete(txn, &tree, finder.key + i);
	if (!ret && tree.dirty)
		um_inode_set_tree(inode, UM_FORK_XATTR, &tree);
	return ret == -ENOENT ? unsound(inode->ino, finder.key) : ret;
}

/* ---- the calls -------------------------------------------------------------------------------------------- */

static int check_name(const char *name)
{
	static const char *const prefixes[] = {"user.", "trusted.", "security."};
	size_t len = strnlen(name, UMBRA_NAME_MAX + 1), i;

	if (!len || len > UMBRA_NAME_MAX)
		return -ERANGE;
	if (um_acl_is_name(name))
		return 0;
	for (i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t n = strlen(prefixes[i]);

		if (!strncmp(name, prefixes[i], n))
			return name[n] ? 0 : -EINVAL;
	}
	return -EOPNOTSUPP;
}

/* Loads the inode for a change of its attributes. */
static int load(struct um_txn *txn, uint64_t ino, struct um_inode *inode)
{
	int ret = um_inode_load(um_txn_src(txn), ino, inode);

	if (ret)
		return ret;
	return inode->core.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL) ? -EPERM : 0;
}

static int store(struct um_txn *txn, struct um_inode *inode, int ret)
{
	if (!ret) {
		um_inode_touch(inode, UM_TOUCH_C);
		ret = um_inode_store(txn, inode);
	}
	return um_txn_end(txn, ret);
}

int umbra_setxattr(struct umbra_fs *fs, uint64_t ino, const char *name, const void *value,
	size_t len, int flags, bool kill_sgid)
{
	struct um_inode inode;
	struct um_txn *txn;
	int ret = check_name(name);

	if (ret)
		return ret;
	if (len > UM_XATTR_VALUE_MAX)
		return -E2BIG;
	if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	ret = um_fs_begin(fs, 0, &txn);
	if (ret)
		return ret;
	ret = load(txn, ino, &inode);
	if (!ret)
		ret = um_acl_is_name(name)
			      ? um_acl_set(txn, &inode, name, value, len, flags, kill_sgid)
			      : um_xattr_set(txn, &inode, name, value, len, flags);
	return store(txn, &inode, ret);
}

int umbra_removexattr(struct umbra_fs *fs, uint64_t ino, const char *name)
{
	struct um_inode inode;
	struct um_txn *txn;
	int ret = check_name(name);

	if (ret)
		return ret;
	ret = um_fs_begin(fs, UM_TXN_RESERVE, &txn);
	if (ret)
		return ret;
	ret = load(txn, ino, &inode);
	if (!ret)
		ret = um_xattr_remove(txn, &inode, name);
	ret = store(txn, &inode, ret);
	return ret == -ENODATA && um_acl_is_name(name) ? 0 : ret;
}

ssize_t umbra_getxattr(
	struct umbra_fs *fs, uint64_t ino, const char *name, void *value, size_t size)
{
	struct um_inode inode;
	size_t len = 0;
	int ret = um_fs_alive(fs);

	if (!ret)
		ret = check_name(name);
	if (ret)
		return ret;
	um_log_read_lock(fs->log);
	ret = um_inode_load(um_fs_src(fs), ino, &inode);
	if (!ret)
		ret = um_xattr_get(um_fs_src(fs), &inode, name, value, size, &len);
	um_log_read_unlock(fs->log);
	return ret ? ret : (ssize_t)len;
}

struct lister {
	um_ino_t ino;
	char *list;
	size_t size, len;
};

static int list_visit(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct lister *lister = arg;
	const struct um_xattr *head;

	if (key & PIECE_MASK)
		return 0;
	head = head_of(val, len);
	if (!head)
		return unsound(lister->ino, key);
	if (lister->size) {
		if (lister->size - lister->len < head->namelen + 1u)
			return -ERANGE;
		memcpy(lister->list + lister->len, head->name, head->namelen);
		lister->list[lister->len + head->namelen] = 0;
	}
	lister->len += head->namelen + 1u;
	return 0;
}

ssize_t umbra_listxattr(struct umbra_fs *fs, uint64_t ino, char *list, size_t size)
{
	struct lister lister = {.ino = ino, .list = list, .size = size};
	struct um_inode inode;
	struct um_tree tree;
	int ret = um_fs_alive(fs);

	if (ret)
		return ret;
	um_log_read_lock(fs->log);
	ret = um_inode_load(um_fs_src(fs), ino, &inode);
	if (!ret) {
		um_inode_tree(&inode, UM_FORK_XATTR, &tree);
		ret = um_tree_walk(
			um_fs_src(fs), &tree, 1ull << HASH_SHIFT, UINT64_MAX, list_visit, &lister);
	}
	um_log_read_unlock(fs->log);
	return ret ? ret : (ssize_t)lister.len;
}
