// SPDX-License-Identifier: BSD-3-Clause
/*
 * umbractl du: what a set of files refers to, what of it only they hold, what others hold too.
 *
 * Every extent of the set becomes a run (first block, end, owners). A sweep over the runs in block
 * order counts, for each stretch of blocks, how many runs of the set cover it; when that reaches the
 * number of owners that the pool knows of, nobody outside the set holds those blocks.
 */
#include "umbractl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <search.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "walk.h"

struct run {
	uint64_t lba, end; /* blocks */
	uint32_t refs;
};

struct seen { /* an inode with several links */
	dev_t dev;
	ino_t ino;
};

struct totals {
	uint64_t files, referenced, physical, exclusive, inline_bytes;
};

struct set {
	struct run *run;
	size_t n, room;
	void *seen;
	struct totals t;
	const char *root; /* path of the argument */
	dev_t dev;
	bool failed;
};

static int add_extent(void *arg, const struct um_ioc_extent *e)
{
	struct set *s = arg;

	s->t.referenced += e->len;
	if (e->flags & UM_EXT_INLINE) {
		s->t.inline_bytes += e->len;
		return 0;
	}
	if (s->n == s->room) {
		size_t room = s->room ? s->room * 2 : 1024;
		void *grown = realloc(s->run, room * sizeof(*s->run));

		if (!grown)
			return -ENOMEM;
		s->run = grown;
		s->room = room;
	}
	s->run[s->n++] = (struct run){e->lba, e->lba + (e->len + 4095) / 4096, e->refs};
	return 0;
}

/* ---- the sweep ------------------------------------------------------------------------------------ */

static int cmp_run(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return x->lba < y->lba ? -1 : x->lba > y->lba;
}

static int cmp_end(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* A binary heap of runs, most owners first. */
static void heap_push(struct run *heap, size_t *n, struct run r)
{
	size_t i = (*n)++;

	while (i && heap[(i - 1) / 2].refs < r.refs) {
		heap[i] = heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	heap[i] = r;
}

static void heap_pop(struct run *heap, size_t *n)
{
	struct run last = heap[--(*n)];
	size_t i = 0, c;

	while ((c = 2 * i + 1) < *n) {
		if (c + 1 < *n && heap[c + 1].refs > heap[c].refs)
			c++;
		if (heap[c].refs <= last.refs)
			break;
		heap[i] = heap[c];
		i = c;
	}
	heap[i] = last;
}

/*
 * Between two neighbouring boundaries the runs that cover a block are the same ones. A run's own
 * count is a lower bound of its blocks' owners, so the highest one at hand decides.
 */
static int sweep(struct set *s)
{
	struct run *heap = malloc((s->n + 1) * sizeof(*heap));
	uint64_t *ends = malloc((s->n + 1) * sizeof(*ends)), at = 0;
	size_t i, begun = 0, ended = 0, held = 0;

	if (!heap || !ends) {
		free(heap);
		free(ends);
		return -ENOMEM;
	}
	qsort(s->run, s->n, sizeof(*s->run), cmp_run);
	for (i = 0; i < s->n; i++)
		ends[i] = s->run[i].end;
	qsort(ends, s->n, sizeof(*ends), cmp_end);
	while (ended < s->n) {
		uint64_t next = ends[ended];

		if (begun < s->n && s->run[begun].lba < next)
			next = s->run[begun].lba;
		while (held && heap[0].end <= at)
			heap_pop(heap, &held);
		if (begun > ended && next > at) {
			s->t.physical += (next - at) * 4096;
			if (begun - ended >= heap[0].refs)
				s->t.exclusive += (next - at) * 4096;
		}
		at = next;
		while (ended < s->n && ends[ended] <= at)
			ended++;
		while (begun < s->n && s->run[begun].lba <= at)
			heap_push(heap, &held, s->run[begun++]);
	}
	free(heap);
	free(ends);
	return 0;
}

/* ---- collecting ------------------------------------------------------------------------------------- */

static int cmp_seen(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;

	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/* 1 if the inode was counted before, 0 if not, -errno. */
static int seen_before(struct set *s, const struct stat *st)
{
	struct seen *key, **slot;

	if (st->st_nlink < 2)
		return 0;
	key = malloc(sizeof(*key));
	if (!key)
		return -ENOMEM;
	*key = (struct seen){st->st_dev, st->st_ino};
	slot = tsearch(key, &s->seen, cmp_seen);
	if (!slot || *slot != key)
		free(key);
	if (!slot)
		return -ENOMEM;
	return *slot != key;
}

static int add_file(struct set *s, int fd, const struct stat *st)
{
	int err = seen_before(s, st);

	if (err)
		return err < 0 ? err : 0;
	/* Blocks that exist only as dirty pages of a mapping are counted too. */
	(void)sync_file_range(fd, 0, 0,
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	s->t.files++;
	return um_fd_map(fd, 0, UINT64_MAX, add_extent, s);
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
	static const struct um_walk_ops ops = {du_entry, NULL, NULL};
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

static struct json_object *totals_json(const char *path, const struct totals *t)
{
	struct json_object *o = json_object_new_object();

	if (!o)
		return NULL;
	json_object_object_add(o, "path", um_json_text(path));
	json_object_object_add(o, "files", json_object_new_uint64(t->files));
	json_object_object_add(o, "referenced_bytes", json_object_new_uint64(t->referenced));
	json_object_object_add(o, "inline_bytes", json_object_new_uint64(t->inline_bytes));
	json_object_object_add(o, "physical_bytes", json_object_new_uint64(t->physical));
	json_object_object_add(o, "exclusive_bytes", json_object_new_uint64(t->exclusive));
	json_object_object_add(
		o, "shared_bytes", json_object_new_uint64(t->physical - t->exclusive));
	return o;
}

static void print_totals(const char *path, const struct totals *t, bool plain)
{
	char ref[UM_SIZE_STR], phys[UM_SIZE_STR], excl[UM_SIZE_STR], shared[UM_SIZE_STR];

	printf("%12s %12s %12s %12s  %s\n", um_size_str(ref, t->referenced, plain),
		um_size_str(phys, t->physical, plain), um_size_str(excl, t->exclusive, plain),
		um_size_str(shared, t->physical - t->exclusive, plain), path);
}

/* One PATH is one set. */
static int du_path(const char *path, bool recursive, bool plain, struct json_object *list)
{
	struct set s = {0};
	int err = add_path(&s, path, recursive);

	if (!err) {
		err = sweep(&s);
		if (err)
			um_err(err, "%s", path);
	}
	if (!err && list)
		json_object_array_add(list, totals_json(path, &s.t));
	else if (!err)
		print_totals(path, &s.t, plain);
	free(s.run);
	tdestroy(s.seen, free);
	return err || s.failed ? -1 : 0;
}

int um_cmd_du(int argc, char **argv)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
		{"bytes", no_argument, NULL, 'b'}, {"recursive", no_argument, NULL, 'r'},
		{"help", no_argument, NULL, 'h'}, {}};
	bool json = false, plain = false, recursive = false;
	struct json_object *list = NULL;
	int opt, i, code = UM_EXIT_OK;

	while ((opt = getopt_long(argc, argv, "brh", longs, NULL)) != -1) {
		if (opt == 'j')
			json = true;
		else if (opt == 'b')
			plain = true;
		else if (opt == 'r')
			recursive = true;
		else
			return um_usage();
	}
	if (argc == optind)
		return um_usage();
	if (json)
		list = json_object_new_array();
	else
		printf("%12s %12s %12s %12s\n", "referenced", "physical", "exclusive", "shared");
	for (i = optind; i < argc; i++)
		if (du_path(argv[i], recursive, plain, list))
			code = UM_EXIT_FAIL;
	if (list && um_json_print(list) != UM_EXIT_OK)
		code = UM_EXIT_FAIL;
	return um_finish_output(code);
}
