/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading everything, however damaged. */
#include "tree.h"

#include <sys/stat.h>
#include <xxhash.h>

#define READ_MAX (1u << 20) /* bytes of a file */
#define INODES_MAX 4096u
#define ENTRIES_MAX 65536u
#define DEPTH_MAX 24u

const struct file *tree_find(const struct tree *tree, uint64_t ino)
{
	size_t i;

	for (i = 0; i < tree->n; i++)
		if (tree->file[i].ino == ino)
			return &tree->file[i];
	return NULL;
}

void tree_free(struct tree *tree)
{
	free(tree->file);
	memset(tree, 0, sizeof(*tree));
}

/* ---- an inode ---------------------------------------------------------------------------------------- */

static bool sum_content(struct umbra_fs *fs, uint64_t ino, uint64_t size, uint64_t *sum)
{
	static uint8_t buf[READ_MAX];
	size_t want = size < sizeof(buf) ? (size_t)size : sizeof(buf);
	ssize_t got = umbra_read(fs, ino, buf, want, 0);

	/* The end of what is too long to be read completely. */
	if (size > sizeof(buf))
		umbra_read(fs, ino, buf, 2 * B, size - B);
	if (got < 0 || (size_t)got != want)
		return false;
	*sum ^= XXH3_64bits_withSeed(buf, (size_t)got, 1);
	return true;
}

static bool sum_xattrs(struct umbra_fs *fs, uint64_t ino, uint64_t *sum)
{
	static char list[65536], value[UM_XATTR_VALUE_MAX];
	ssize_t len = umbra_listxattr(fs, ino, list, sizeof(list)), got;
	const char *name;
	bool good = len >= 0;

	for (name = list; name < list + len; name += strlen(name) + 1) {
		got = umbra_getxattr(fs, ino, name, value, sizeof(value));
		if (got < 0)
			good = false;
		else
			*sum += XXH3_64bits_withSeed(value, (size_t)got, mix_text(2, name));
	}
	return good;
}

bool tree_sum(struct umbra_fs *fs, uint64_t ino, uint64_t *out)
{
	char target[UMBRA_SYMLINK_MAX + 1];
	struct umbra_attr attr;
	uint64_t sum = 0;
	bool good;

	if (umbra_getattr(fs, ino, &attr))
		return false;
	good = sum_xattrs(fs, ino, &sum);
	sum ^= mix64(attr.st.st_mode ^ mix64(attr.st.st_uid ^ mix64(attr.st.st_gid)));
	sum ^= mix64(attr.st.st_rdev ^ mix64(attr.flags));
	if (!S_ISDIR(attr.st.st_mode))
		sum ^= mix64((uint64_t)attr.st.st_size);
	if (S_ISREG(attr.st.st_mode))
		good = sum_content(fs, ino, (uint64_t)attr.st.st_size, &sum) && good;
	if (S_ISLNK(attr.st.st_mode)) {
		if (umbra_readlink(fs, ino, target))
			return false;
		sum ^= XXH3_64bits_withSeed(target, strlen(target), 3);
	}
	*out = sum;
	return good;
}

/* ---- all of them ------------------------------------------------------------------------------------- */

struct walk {
	struct umbra_fs *fs;
	struct tree *tree;
	unsigned depth, entries;
};

struct names {
	char *text; /* each name with its NUL */
	size_t len, cap;
	struct walk *w;
};

static int note_name(void *arg, const char *name, uint64_t ino, unsigned char type, uint64_t cookie)
{
	struct names *names = arg;
	size_t len = strlen(name) + 1;

	(void)ino;
	(void)type;
	(void)cookie;
	if (names->w->entries++ > ENTRIES_MAX)
		return 1;
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return 0;
	grow(&names->text, names->len + len, &names->cap, 1);
	memcpy(names->text + names->len, name, len);
	names->len += len;
	return 0;
}

static void walk_inode(struct walk *w, uint64_t ino);

static void walk_dir(struct walk *w, uint64_t ino)
{
	struct names names = {.w = w};
	struct umbra_attr attr;
	size_t at;

	if (umbra_readdir(w->fs, ino, 0, note_name, &names) < 0)
		w->tree->errors++;
	w->depth++;
	for (at = 0; at < names.len; at += strlen(names.text + at) + 1) {
		if (umbra_lookup(w->fs, ino, names.text + at, &attr)) {
			w->tree->errors++;
			continue;
		}
		if (!tree_find(w->tree, attr.st.st_ino))
			walk_inode(w, attr.st.st_ino);
		umbra_forget(w->fs, attr.st.st_ino, 1);
	}
	w->depth--;
	free(names.text);
}

static void walk_inode(struct walk *w, uint64_t ino)
{
	struct tree *tree = w->tree;
	struct umbra_attr attr;
	struct file *file;

	if (tree->n >= INODES_MAX || w->depth >= DEPTH_MAX)
		return;
	grow(&tree->file, tree->n, &tree->cap, sizeof(*tree->file));
	file = &tree->file[tree->n++];
	*file = (struct file){.ino = ino};
	if (umbra_getattr(w->fs, ino, &attr)) {
		tree->errors++;
		return;
	}
	file->type = attr.st.st_mode & S_IFMT;
	if (!tree_sum(w->fs, ino, &file->sum))
		tree->errors++;
	if (S_ISDIR(attr.st.st_mode))
		walk_dir(w, ino);
}

void tree_walk(struct umbra_fs *fs, struct tree *out)
{
	struct walk w = {.fs = fs, .tree = out};

	walk_inode(&w, UM_ROOT_INO);
}
