// SPDX-License-Identifier: BSD-3-Clause
/* umbractl owners: every file that refers to a block of the pool, by inode, offset and path. */
#include "umbractl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TRIES 3 /* number of scans tried, until nothing is committed during one */

struct owner {
	uint64_t ino, off;
	bool cached;
};

struct name {
	uint64_t ino;
	char *path;
};

struct report {
	uint64_t lba;
	uint32_t refs;
	bool exact; /* nothing was committed while the trees were read */
	uint64_t damaged, inodes;
	struct owner *owner;
	size_t nowner;
	struct name *name;
	size_t nname;
};

static int grow(void **array, size_t n, size_t item)
{
	void *more;

	/* Doubles at powers of two. */
	if (n & (n - 1))
		return 0;
	more = realloc(*array, (n ? 2 * n : 1) * item);
	if (!more)
		return -ENOMEM;
	*array = more;
	return 0;
}

/* ---- owners ----------------------------------------------------------------------------------- */

static int take_owners(struct report *r, const struct um_ioc_lba_owners *page)
{
	if (page->count > sizeof(page->owner) / sizeof(page->owner[0]))
		return -EPROTO;
	for (uint32_t i = 0; i < page->count; i++) {
		int err = grow((void **)&r->owner, r->nowner, sizeof(*r->owner));

		if (err)
			return err;
		r->owner[r->nowner++] = (struct owner){
			page->owner[i].ino, page->owner[i].off, page->owner[i].cached};
	}
	return 0;
}

static int scan(int fd, struct report *r)
{
	struct um_ioc_lba_owners page;

	memset(&page, 0, sizeof(page));
	page.lba = r->lba;
	r->nowner = 0;
	do {
		int err;

		if (ioctl(fd, UM_IOC_LBA_OWNERS, &page) < 0)
			return -errno;
		err = take_owners(r, &page);
		if (err)
			return err;
	} while (!page.done);
	r->refs = page.refs;
	r->exact = !page.changed;
	r->damaged = page.damaged;
	r->inodes = page.inodes;
	return 0;
}

/* ---- paths ------------------------------------------------------------------------------------ */

static int take_paths(struct report *r, const struct um_ioc_paths *page)
{
	uint32_t at = 0;

	if (page->len > sizeof(page->text))
		return -EPROTO;
	while (at < page->len) {
		uint32_t left = page->len - at;
		const char *path = page->text + at + 8;
		int err;

		if (left <= 8 || !memchr(path, 0, left - 8))
			return -EPROTO;
		err = grow((void **)&r->name, r->nname, sizeof(*r->name));
		if (err)
			return err;
		memcpy(&r->name[r->nname].ino, page->text + at, 8);
		r->name[r->nname].path = strdup(path);
		if (!r->name[r->nname].path)
			return -ENOMEM;
		r->nname++;
		at += 8 + (uint32_t)strlen(path) + 1;
	}
	return 0;
}

static int by_inode(const void *a, const void *b)
{
	const struct name *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->path && y->path ? strcmp(x->path, y->path) : 0;
}

/* Owners come in the order of their inodes. */
static int find_paths(int fd, struct report *r)
{
	struct um_ioc_paths page;
	size_t at = 0;

	while (at < r->nowner) {
		memset(&page, 0, sizeof(page));
		for (; at < r->nowner && page.nino < sizeof(page.ino) / sizeof(page.ino[0]); at++)
			if (!page.nino || page.ino[page.nino - 1] != r->owner[at].ino)
				page.ino[page.nino++] = r->owner[at].ino;
		do {
			int err;

			if (ioctl(fd, UM_IOC_PATHS, &page) < 0)
				return -errno;
			err = take_paths(r, &page);
			if (err)
				return err;
		} while (!page.done);
	}
	if (r->nname)
		qsort(r->name, r->nname, sizeof(*r->name), by_inode);
	return 0;
}

static size_t first_name(const struct report *r, uint64_t ino)
{
	size_t lo = 0, hi = r->nname;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (r->name[mid].ino < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* ---- printing --------------------------------------------------------------------------------- */

static int print_text(const struct report *r)
{
	size_t i, cached = 0;

	if (r->nowner)
		printf("%12s %16s  %-6s  %s\n", "inode", "offset", "cached", "path");
	for (i = 0; i < r->nowner; i++) {
		const struct owner *o = &r->owner[i];
		size_t n = first_name(r, o->ino);

		cached += o->cached;
		printf("%12" PRIu64 " %16" PRIu64 "  %-6s  %s\n", o->ino, o->off,
			o->cached ? "yes" : "no",
			n < r->nname && r->name[n].ino == o->ino ? r->name[n].path : "(no name)");
		while (++n < r->nname && r->name[n].ino == o->ino)
			printf("%12s %16s  %-6s  %s\n", "", "", "", r->name[n].path);
	}
	printf("block %" PRIu64 ": %zu owners, %zu cached, %" PRIu32 " references\n", r->lba,
		r->nowner, cached, r->refs);
	if (!r->nowner && r->refs)
		puts("It holds metadata.");
	if (!r->exact)
		puts("The pool was changing: owners that came or went meanwhile may be missing.");
	if (r->damaged)
		printf("%" PRIu64 " files could not be read: run fsck.umbrafs.\n", r->damaged);
	return um_finish_output(UM_EXIT_OK);
}

static struct json_object *owner_json(const struct report *r, const struct owner *o)
{
	struct json_object *obj = json_object_new_object(), *paths = json_object_new_array();
	size_t n;

	json_object_object_add(obj, "inode", json_object_new_uint64(o->ino));
	json_object_object_add(obj, "offset", json_object_new_uint64(o->off));
	json_object_object_add(obj, "cached", json_object_new_boolean(o->cached));
	for (n = first_name(r, o->ino); n < r->nname && r->name[n].ino == o->ino; n++)
		json_object_array_add(paths, um_json_text(r->name[n].path));
	json_object_object_add(obj, "paths", paths);
	return obj;
}

static int print_json(const struct report *r)
{
	struct json_object *obj = json_object_new_object(), *list = json_object_new_array();

	json_object_object_add(obj, "lba", json_object_new_uint64(r->lba));
	json_object_object_add(obj, "references", json_object_new_uint64(r->refs));
	json_object_object_add(obj, "exact", json_object_new_boolean(r->exact && !r->damaged));
	json_object_object_add(obj, "unreadable_files", json_object_new_uint64(r->damaged));
	for (size_t i = 0; i < r->nowner; i++)
		json_object_array_add(list, owner_json(r, &r->owner[i]));
	json_object_object_add(obj, "owners", list);
	return um_json_print(obj);
}

/* ---- the command ------------------------------------------------------------------------------ */

static int collect(const char *path, struct report *r)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int err = fd < 0 ? -errno : um_fd_info(fd, NULL);

	for (unsigned i = 0; !err && i < TRIES && !r->exact; i++)
		err = scan(fd, r);
	if (!err)
		err = find_paths(fd, r);
	if (fd >= 0)
		close(fd);
	return err;
}

int um_cmd_owners(int argc, char **argv)
{
	static const struct option longs[] = {
		{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {}};
	struct report r = {0};
	bool json = false;
	char *end;
	int opt, err, status;

	while ((opt = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (opt != 'j')
			return um_usage();
		json = true;
	}
	if (argc - optind != 2 || argv[optind + 1][0] < '0' || argv[optind + 1][0] > '9')
		return um_usage();
	errno = 0;
	r.lba = strtoull(argv[optind + 1], &end, 0);
	if (errno || *end)
		return um_usage();
	err = collect(argv[optind], &r);
	if (err == -ENOTTY)
		um_err(0, "%s: not on a mounted umbrafs", argv[optind]);
	else if (err == -EINVAL)
		um_err(0, "%s: the pool has no block %" PRIu64, argv[optind], r.lba);
	else if (err)
		um_err(err, "%s", argv[optind]);
	status = err ? UM_EXIT_FAIL : json ? print_json(&r) : print_text(&r);
	for (size_t i = 0; i < r.nname; i++)
		free(r.name[i].path);
	free(r.name);
	free(r.owner);
	return status;
}
