/* SPDX-License-Identifier: BSD-3-Clause */
/* A whole tree as seen through the engine's public functions, for comparison with another. */
#include <errno.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "crash.h"

#define READ_MAX (4u << 20)
#define DEPTH_MAX 16

unsigned snapshot_unit = B;

void snapshot_free(struct snapshot *s)
{
	free(s->node);
	free(s->text);
	free(s->hash);
	memset(s, 0, sizeof(*s));
}

/* ---- taking ---------------------------------------------------------------------------------------- */

struct taker {
	struct umbra_fs *fs;
	struct snapshot *s;
	char *why;
	size_t size;
	const char *path; /* of what is being looked at */
};

static int fail(struct taker *t, const char *what, int err)
{
	if (!t->why[0])
		snprintf(t->why, t->size, "%s of /%s: %s", what, t->path, strerror(-err));
	return err;
}

/* 0 if everything is zero, as beyond the end of a file. */
static uint64_t unit_hash(const uint8_t *bytes)
{
	static const uint8_t zeros[B];

	return memcmp(bytes, zeros, snapshot_unit) ? XXH3_64bits(bytes, snapshot_unit) : 0;
}

static int take_content(struct taker *t, struct node *node)
{
	static uint8_t *buf;
	uint64_t i, n = (node->size + snapshot_unit - 1) / snapshot_unit;
	ssize_t got;

	if (!buf)
		buf = xalloc(READ_MAX);
	node->first = (uint32_t)t->s->nhash;
	if (node->size > READ_MAX)
		return fail(t, "size", -EFBIG);
	got = umbra_read(t->fs, node->ino, buf, READ_MAX, 0);
	if (got < 0)
		return fail(t, "read", (int)got);
	if ((uint64_t)got != node->size)
		return fail(t, "short read", -EIO);
	memset(buf + got, 0, n * snapshot_unit - (size_t)got);
	for (i = 0; i < n; i++) {
		grow(&t->s->hash, t->s->nhash, &t->s->cap_hash, sizeof(*t->s->hash));
		t->s->hash[t->s->nhash++] = unit_hash(buf + i * snapshot_unit);
	}
	node->nunit = (uint32_t)n;
	return 0;
}

/* Sum over all attributes, so that their order does not matter. */
static int take_xattrs(struct taker *t, struct node *node)
{
	static char list[65536], value[UM_XATTR_VALUE_MAX];
	ssize_t len = umbra_listxattr(t->fs, node->ino, list, sizeof(list)), got;
	const char *name;

	if (len < 0)
		return fail(t, "listxattr", (int)len);
	for (name = list; name < list + len; name += strlen(name) + 1) {
		got = umbra_getxattr(t->fs, node->ino, name, value, sizeof(value));
		if (got < 0)
			return fail(t, name, (int)got);
		node->xattrs += XXH3_64bits_withSeed(value, (size_t)got, mix_text(1, name));
	}
	return 0;
}

static int take_target(struct taker *t, struct node *node)
{
	char target[UMBRA_SYMLINK_MAX + 1];
	int ret = umbra_readlink(t->fs, node->ino, target);

	if (ret)
		return fail(t, "readlink", ret);
	if (strlen(target) != node->size)
		return fail(t, "length of target", -EIO);
	node->target = XXH3_64bits(target, strlen(target));
	return 0;
}

static void fill_node(struct node *node, const struct umbra_attr *attr)
{
	node->size = (uint64_t)attr->st.st_size;
	node->blocks = (uint64_t)attr->st.st_blocks;
	node->rdev = attr->st.st_rdev;
	node->mode = attr->st.st_mode;
	node->nlink = (uint32_t)attr->st.st_nlink;
	node->uid = attr->st.st_uid;
	node->gid = attr->st.st_gid;
	node->flags = attr->flags;
	node->time[0] = attr->st.st_atim;
	node->time[1] = attr->st.st_mtim;
	node->time[2] = attr->st.st_ctim;
	node->time[3] = attr->btime;
}

struct dir_list {
	struct taker *t;
	struct {
		uint64_t ino;
		uint32_t name;
		unsigned char type;
	} * entry;
	size_t n, cap;
	char *names;
	size_t nnames, cap_names;
	uint64_t self, parent;
};

static int list_entry(
	void *arg, const char *name, uint64_t ino, unsigned char type, uint64_t cookie)
{
	struct dir_list *list = arg;
	size_t len = strlen(name) + 1;

	(void)cookie;
	if (!strcmp(name, ".") || !strcmp(name, "..")) {
		*(name[1] ? &list->parent : &list->self) = ino;
		return 0;
	}
	grow(&list->entry, list->n, &list->cap, sizeof(*list->entry));
	grow(&list->names, list->nnames + len, &list->cap_names, 1);
	list->entry[list->n].ino = ino;
	list->entry[list->n].type = type;
	list->entry[list->n++].name = (uint32_t)list->nnames;
	memcpy(list->names + list->nnames, name, len);
	list->nnames += len;
	return 0;
}

static int take_node(struct taker *t, uint64_t parent, uint64_t ino, const char *path, int depth);

static int take_entry(
	struct taker *t, const struct dir_list *list, size_t i, const char *path, int depth)
{
	const char *name = list->names + list->entry[i].name;
	struct umbra_attr attr;
	char below[512];
	int ret = umbra_lookup(t->fs, list->self, name, &attr);

	snprintf(below, sizeof(below), "%s%s%s", path, path[0] ? "/" : "", name);
	t->path = below;
	if (ret)
		return fail(t, "lookup", ret);
	umbra_forget(t->fs, attr.st.st_ino, 1);
	if (attr.st.st_ino != list->entry[i].ino)
		return fail(t, "inode number", -EIO);
	if (list->entry[i].type != (attr.st.st_mode & S_IFMT) >> 12)
		return fail(t, "type in directory", -EIO);
	return take_node(t, list->self, attr.st.st_ino, below, depth + 1);
}

static int take_dir(struct taker *t, uint64_t parent, uint64_t ino, const char *path, int depth)
{
	struct dir_list list = {.t = t};
	size_t i;
	int ret;

	if (depth > DEPTH_MAX)
		return fail(t, "depth", -ELOOP);
	ret = umbra_readdir(t->fs, ino, 0, list_entry, &list);
	if (ret)
		ret = fail(t, "readdir", ret);
	else if (list.self != ino || list.parent != parent)
		ret = fail(t, ". and ..", -EIO);
	for (i = 0; i < list.n && !ret; i++)
		ret = take_entry(t, &list, i, path, depth);
	free(list.entry);
	free(list.names);
	return ret;
}

static int take_node(struct taker *t, uint64_t parent, uint64_t ino, const char *path, int depth)
{
	struct snapshot *s = t->s;
	struct umbra_attr attr;
	struct node node = {.ino = ino};
	size_t len = strlen(path) + 1;
	int ret = umbra_getattr(t->fs, ino, &attr);

	t->path = path;
	if (ret)
		return fail(t, "getattr", ret);
	fill_node(&node, &attr);
	ret = take_xattrs(t, &node);
	if (!ret && S_ISREG(node.mode))
		ret = take_content(t, &node);
	if (!ret && S_ISLNK(node.mode))
		ret = take_target(t, &node);
	if (ret)
		return ret;
	grow(&s->text, s->ntext + len, &s->cap_text, 1);
	node.path = (uint32_t)s->ntext;
	memcpy(s->text + s->ntext, path, len);
	s->ntext += len;
	grow(&s->node, s->n, &s->cap, sizeof(*s->node));
	s->node[s->n++] = node;
	return S_ISDIR(node.mode) ? take_dir(t, parent, ino, path, depth) : 0;
}

int snapshot_take(struct umbra_fs *fs, struct snapshot *s, char *why, size_t size)
{
	struct taker t = {.fs = fs, .s = s, .why = why, .size = size};
	int ret;

	s->n = s->ntext = s->nhash = 0;
	s->open.ino = s->open.nunit = 0;
	why[0] = 0;
	ret = take_node(&t, UM_ROOT_INO, UM_ROOT_INO, "", 0);
	s->digest = XXH3_64bits(s->node, s->n * sizeof(*s->node));
	s->digest ^= XXH3_64bits_withSeed(s->text, s->ntext, 1);
	s->digest ^= XXH3_64bits_withSeed(s->hash, s->nhash * sizeof(*s->hash), 2);
	return ret;
}

int snapshot_take_open(
	struct umbra_fs *fs, struct snapshot *s, uint64_t ino, char *why, size_t size)
{
	struct taker t = {.fs = fs, .s = s, .why = why, .size = size, .path = "(the open file)"};
	size_t of_tree = s->nhash;
	struct umbra_attr attr;
	int ret = umbra_getattr(fs, ino, &attr);

	if (ret)
		return fail(&t, "getattr", ret);
	s->open.ino = ino;
	fill_node(&s->open, &attr);
	if (!S_ISREG(attr.st.st_mode)) /* what was exchanged for it; its entries are in the tree */
		return 0;
	ret = take_content(&t, &s->open);
	s->nhash = of_tree;
	return ret;
}

void snapshot_copy(struct snapshot *to, const struct snapshot *from)
{
	size_t nhash = from->nhash + from->open.nunit;

	grow(&to->node, from->n, &to->cap, sizeof(*to->node));
	grow(&to->text, from->ntext, &to->cap_text, 1);
	grow(&to->hash, nhash, &to->cap_hash, sizeof(*to->hash));
	memcpy(to->node, from->node, from->n * sizeof(*to->node));
	memcpy(to->text, from->text, from->ntext);
	memcpy(to->hash, from->hash, nhash * sizeof(*to->hash));
	to->open = from->open;
	to->n = from->n;
	to->ntext = from->ntext;
	to->nhash = from->nhash;
	to->digest = from->digest;
}

/* ---- comparing ---------------------------------------------------------------------------------------- */

/* Directories are read in the order of their names' hashes, so equal trees have equal arrays. */
bool snapshot_equal(const struct snapshot *a, const struct snapshot *b)
{
	return a->digest == b->digest && a->n == b->n && a->ntext == b->ntext &&
	       a->nhash == b->nhash && !memcmp(a->node, b->node, a->n * sizeof(*a->node)) &&
	       !memcmp(a->text, b->text, a->ntext) &&
	       !memcmp(a->hash, b->hash, a->nhash * sizeof(*a->hash));
}

static const char *path_of(const struct snapshot *s, size_t i)
{
	return s->text + s->node[i].path;
}

const struct node *snapshot_find(const struct snapshot *s, const char *path)
{
	size_t i;

	for (i = 0; i < s->n; i++)
		if (!strcmp(path_of(s, i), path))
			return &s->node[i];
	return NULL;
}

static uint64_t hash_at(const struct snapshot *s, const struct node *node, uint32_t i)
{
	return i < node->nunit ? s->hash[node->first + i] : 0;
}

static bool same_content(const struct snapshot *a, const struct node *x, const struct snapshot *b,
	const struct node *y)
{
	uint32_t i;

	for (i = 0; i < x->nunit || i < y->nunit; i++)
		if (hash_at(a, x, i) != hash_at(b, y, i))
			return false;
	return true;
}

#define SAME(field) (x->field == y->field)
static bool same_name(const struct node *x, const struct node *y)
{
	return SAME(ino) && SAME(mode) && SAME(nlink) && SAME(uid) && SAME(gid) && SAME(flags) &&
	       SAME(rdev) && SAME(xattrs) && SAME(target);
}

static bool same_node(const struct snapshot *a, const struct node *x, const struct snapshot *b,
	const struct node *y)
{
	return same_name(x, y) && SAME(size) && SAME(blocks) &&
	       !memcmp(x->time, y->time, sizeof(x->time)) && same_content(a, x, b, y);
}

static bool between(uint64_t x, uint64_t p, uint64_t q)
{
	return p < q ? x >= p && x <= q : x >= q && x <= p;
}

static bool node_between(const struct snapshot *s, const struct snapshot *a,
	const struct snapshot *b, size_t i, struct mix mix)
{
	const struct node *x = &s->node[i], *p = &a->node[i], *q = &b->node[i];
	uint32_t k;

	if (!same_name(x, p) && !same_name(x, q))
		return false;
	if (mix.size ? !between(x->size, p->size, q->size)
		     : x->size != p->size && x->size != q->size)
		return false;
	for (k = 0; !mix.torn && (k < x->nunit || k < p->nunit || k < q->nunit); k++) {
		uint64_t hash = hash_at(s, x, k);

		if (hash != hash_at(a, p, k) && hash != hash_at(b, q, k))
			return false;
	}
	return true;
}

bool snapshot_between(const struct snapshot *s, const struct snapshot *a, const struct snapshot *b,
	struct mix mix)
{
	size_t i;

	if (snapshot_equal(s, a) || snapshot_equal(s, b))
		return true;
	if (!mix.ino || s->n != a->n || s->n != b->n)
		return false;
	for (i = 0; i < s->n; i++) {
		if (strcmp(path_of(s, i), path_of(a, i)) || strcmp(path_of(s, i), path_of(b, i)))
			return false;
		if (s->node[i].ino == mix.ino ? !node_between(s, a, b, i, mix)
					      : !same_node(s, &s->node[i], a, &a->node[i]) &&
							!same_node(s, &s->node[i], b, &b->node[i]))
			return false;
	}
	return true;
}

static bool unit_in_one(
	const struct snapshot *some, size_t n, uint64_t ino, uint32_t unit, uint64_t hash)
{
	size_t i, k;

	for (i = 0; i < n; i++) {
		if (some[i].open.ino == ino && hash_at(&some[i], &some[i].open, unit) == hash)
			return true;
		for (k = 0; k < some[i].n; k++)
			if (some[i].node[k].ino == ino &&
				hash_at(&some[i], &some[i].node[k], unit) == hash)
				return true;
	}
	return false;
}

bool snapshot_like(
	const struct snapshot *s, const struct snapshot *a, const struct snapshot *some, size_t n)
{
	size_t i;
	uint32_t k;

	if (snapshot_equal(s, a))
		return true;
	if (s->n != a->n)
		return false;
	for (i = 0; i < s->n; i++) {
		const struct node *x = &s->node[i], *y = &a->node[i];

		if (strcmp(path_of(s, i), path_of(a, i)) || !same_name(x, y) || !SAME(size) ||
			!SAME(blocks) || memcmp(x->time, y->time, sizeof(x->time)))
			return false;
		/* The unit that the end cuts through may be one that was longer. */
		for (k = 0; k < x->size / snapshot_unit; k++)
			if (!unit_in_one(some, n, x->ino, k, hash_at(s, x, k)))
				return false;
	}
	return true;
}

/* ---- saying ---------------------------------------------------------------------------------------------- */

static void say(const struct snapshot *s, size_t i, FILE *out)
{
	const struct node *n = &s->node[i];

	fprintf(out,
		"/%s: ino %llu mode %o nlink %u uid %u gid %u flags %x size %llu blocks %llu "
		"xattrs %llx target %llx times %lld.%09ld %lld.%09ld %lld.%09ld content",
		path_of(s, i), (unsigned long long)n->ino, n->mode, n->nlink, n->uid, n->gid,
		n->flags, (unsigned long long)n->size, (unsigned long long)n->blocks,
		(unsigned long long)n->xattrs, (unsigned long long)n->target,
		(long long)n->time[0].tv_sec, n->time[0].tv_nsec, (long long)n->time[1].tv_sec,
		n->time[1].tv_nsec, (long long)n->time[2].tv_sec, n->time[2].tv_nsec);
	for (uint32_t k = 0; k < n->nunit && k < 24; k++)
		fprintf(out, " %04llx", (unsigned long long)(hash_at(s, n, k) & 0xffff));
	fputc('\n', out);
}

void snapshot_diff(const struct snapshot *want, const struct snapshot *got, FILE *out)
{
	size_t i, k;

	for (i = 0; i < want->n; i++) {
		for (k = 0; k < got->n && strcmp(path_of(want, i), path_of(got, k)); k++)
			;
		if (k < got->n && same_node(want, &want->node[i], got, &got->node[k]))
			continue;
		fputs("    - ", out);
		say(want, i, out);
		if (k < got->n) {
			fputs("    + ", out);
			say(got, k, out);
		}
	}
	for (k = 0; k < got->n; k++) {
		if (snapshot_find(want, path_of(got, k)))
			continue;
		fputs("    + ", out);
		say(got, k, out);
	}
}
