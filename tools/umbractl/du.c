// SPDX-License-Identifier: BSD-3-Clause
/* umbractl du: what a set of files refers to, which part of it only they hold, and which others
 * hold too. */
#include "umbractl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <search.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "du.h"
#include "walk.h"

struct seen { /* an inode that is in the set already */
	dev_t dev;
	ino_t ino;
};

struct set {
	struct um_usage_set *usage;
	struct um_usage_set *all; /* of all paths together, or NULL */
	void *seen;
	void **seen_all;
	const char *root; /* path of the argument */
	dev_t dev;
	bool failed;
};

/* ---- collecting ------------------------------------------------------------------------------------- */

static int cmp_seen(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;

	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/* 1 if the inode was counted before, 0 if not, -errno. */
static int seen_before(void **tree, const struct stat *st)
{
	struct seen *key = malloc(sizeof(*key)), **slot;

	if (!key)
		return -ENOMEM;
	*key = (struct seen){st->st_dev, st->st_ino};
	slot = tsearch(key, tree, cmp_seen);
	if (!slot) {
		free(key);
		return -ENOMEM;
	}
	if (*slot == key)
		return 0;
	free(key);
	return 1;
}

static int add_file(struct set *s, int fd, const struct stat *st)
{
	/* A file with one link occurs once in a walk. */
	int again = st->st_nlink > 1 ? seen_before(&s->seen, st) : 0, err = 0;

	if (again < 0)
		return again;
	/* Blocks that exist only as dirty pages of a mapping are counted too. */
	(void)sync_file_range(fd, 0, 0,
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	if (!again)
		err = um_usage_add(s->usage, fd);
	if (err || !s->all)
		return err;
	again = seen_before(s->seen_all, st);
	return again ? (again < 0 ? again : 0) : um_usage_add(s->all, fd);
}

static int du_entry(void *arg, int dirfd, const char *name, const struct stat *st, bool *skip)
{
	struct set *s = arg;
	struct stat now;
	int fd, err;

	if (st->st_dev != s->dev) {
		*skip = true; /* another filesystem, mounted here */
		return 0;
	}
	if (!S_ISREG(st->st_mode))
		return 0;
	fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &now) < 0)
		err = -errno;
	else
		err = S_ISREG(now.st_mode) ? add_file(s, fd, &now) : 0;
	if (fd >= 0)
		close(fd);
	if (err == -ENOMEM)
		return err;
	if (err && err != -ENOENT) {
		um_err(err, "%s/%s", s->root, um_walk_path());
		s->failed = true;
	}
	return 0;
}

static int add_path(struct set *s, const char *path, bool recursive)
{
	static const struct um_walk_ops ops = {.entry = du_entry};
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), err;
	struct stat st;

	s->root = path;
	if (fd < 0 || fstat(fd, &st) < 0) {
		err = -errno;
		um_err(err, "%s", path);
		goto out;
	}
	s->dev = st.st_dev;
	err = -EINVAL;
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
		um_err(0, "%s: neither a regular file nor a directory", path);
	} else if (S_ISDIR(st.st_mode) && !recursive) {
		um_err(0, "%s: is a directory (use -r)", path);
	} else if ((err = um_fd_info(fd, NULL)) == -ENOTTY) {
		um_err(0, "%s: not on a mounted umbrafs", path);
	} else {
		if (!err)
			err = S_ISDIR(st.st_mode) ? um_walk(fd, &ops, s) : add_file(s, fd, &st);
		if (err)
			um_err(err, "%s", path);
	}
out:
	if (fd >= 0)
		close(fd);
	if (err)
		s->failed = true;
	return err;
}

/* ---- output ------------------------------------------------------------------------------------------- */

struct output {
	bool recursive, plain;
	struct json_object *list; /* JSON, else NULL: text */
};

static struct json_object *usage_json(const char *path, const struct um_usage_sums *u)
{
	struct json_object *o = json_object_new_object();

	if (!o)
		return NULL;
	json_object_object_add(o, "path", path ? um_json_text(path) : NULL);
	json_object_object_add(o, "files", json_object_new_uint64(u->files));
	json_object_object_add(o, "referenced_bytes", json_object_new_uint64(u->referenced));
	json_object_object_add(o, "inline_bytes", json_object_new_uint64(u->inline_bytes));
	json_object_object_add(o, "physical_bytes", json_object_new_uint64(u->physical));
	json_object_object_add(o, "exclusive_bytes", json_object_new_uint64(u->exclusive));
	json_object_object_add(
		o, "shared_bytes", json_object_new_uint64(u->physical - u->exclusive));
	return o;
}

/* path NULL: all of them. */
static int print_usage(struct um_usage_set *set, const char *path, const struct output *out)
{
	char ref[UM_SIZE_STR], phys[UM_SIZE_STR], excl[UM_SIZE_STR], shared[UM_SIZE_STR];
	struct um_usage_sums u;
	struct json_object *o;
	int err = um_usage_sum(set, &u);

	if (err) {
		um_err(err, "%s", path ? path : "total");
		return err;
	}
	if (out->list) {
		o = usage_json(path, &u);
		return o && !json_object_array_add(out->list, o) ? 0 : -ENOMEM;
	}
	printf("%12s %12s %12s %12s  %s\n", um_size_str(ref, u.referenced, out->plain),
		um_size_str(phys, u.physical, out->plain),
		um_size_str(excl, u.exclusive, out->plain),
		um_size_str(shared, u.physical - u.exclusive, out->plain), path ? path : "total");
	return 0;
}

/* One PATH is one set. */
static int du_path(
	const char *path, struct um_usage_set *all, void **seen_all, const struct output *out)
{
	struct set s = {.all = all, .seen_all = seen_all};
	int err;

	s.usage = um_usage_new();
	if (!s.usage)
		return -ENOMEM;
	err = add_path(&s, path, out->recursive);
	if (!err)
		err = print_usage(s.usage, path, out);
	um_usage_free(s.usage);
	tdestroy(s.seen, free);
	return err || s.failed ? -1 : 0;
}

static int du_paths(char **paths, bool total, const struct output *out)
{
	struct um_usage_set *all = NULL;
	void *seen_all = NULL;
	int code = UM_EXIT_OK;

	if (total) {
		all = um_usage_new();
		if (!all) {
			um_err(ENOMEM, "total");
			return UM_EXIT_FAIL;
		}
	}
	for (; *paths; paths++)
		if (du_path(*paths, all, &seen_all, out))
			code = UM_EXIT_FAIL;
	if (all && print_usage(all, NULL, out))
		code = UM_EXIT_FAIL;
	if (all)
		um_usage_free(all);
	tdestroy(seen_all, free);
	return code;
}

int um_cmd_du(int argc, char **argv)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
		{"bytes", no_argument, NULL, 'b'}, {"recursive", no_argument, NULL, 'r'},
		{"total", no_argument, NULL, 'c'}, {"help", no_argument, NULL, 'h'}, {}};
	struct output out = {0};
	bool json = false, total = false;
	int opt, code;

	while ((opt = getopt_long(argc, argv, "bcrh", longs, NULL)) != -1) {
		if (opt == 'j')
			json = true;
		else if (opt == 'b')
			out.plain = true;
		else if (opt == 'c')
			total = true;
		else if (opt == 'r')
			out.recursive = true;
		else
			return um_usage();
	}
	if (argc == optind)
		return um_usage();
	if (json)
		out.list = json_object_new_array();
	else
		printf("%12s %12s %12s %12s\n", "referenced", "physical", "exclusive", "shared");
	code = du_paths(argv + optind, total, &out);
	if (out.list && um_json_print(out.list) != UM_EXIT_OK)
		code = UM_EXIT_FAIL;
	return um_finish_output(code);
}
