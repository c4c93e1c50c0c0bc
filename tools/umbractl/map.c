// SPDX-License-Identifier: BSD-3-Clause
/* umbractl map: where a file's bytes are and who else has them. */
#include "umbractl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct printer {
	struct json_object *list; /* JSON, else NULL: text */
	bool plain;
	uint64_t extents, bytes, shared;
};

static int print_text(const struct printer *p, const struct um_ioc_extent *e)
{
	char off[UM_SIZE_STR], len[UM_SIZE_STR], lba[24] = "-";

	if (!p->extents)
		printf("%16s %14s %14s %8s  %s\n", "offset", "length", "lba", "refs", "flags");
	if (!(e->flags & UM_EXT_INLINE))
		snprintf(lba, sizeof(lba), "%" PRIu64, (uint64_t)e->lba);
	printf("%16s %14s %14s %8" PRIu32 "  %s%s%s\n", um_size_str(off, e->off, true),
		um_size_str(len, e->len, p->plain), lba, e->refs,
		e->flags & UM_EXT_INLINE ? "inline " : "",
		e->flags & UM_EXT_UNWRITTEN ? "unwritten " : "",
		e->flags & UM_EXT_SHARED ? "shared" : "");
	return ferror(stdout) ? -EIO : 0;
}

static int print_json(const struct printer *p, const struct um_ioc_extent *e)
{
	struct json_object *o = json_object_new_object();

	if (!o)
		return -ENOMEM;
	json_object_object_add(o, "offset", json_object_new_uint64(e->off));
	json_object_object_add(o, "length", json_object_new_uint64(e->len));
	json_object_object_add(
		o, "lba", e->flags & UM_EXT_INLINE ? NULL : json_object_new_uint64(e->lba));
	json_object_object_add(o, "refs", json_object_new_uint64(e->refs));
	json_object_object_add(o, "shared", json_object_new_boolean(!!(e->flags & UM_EXT_SHARED)));
	json_object_object_add(
		o, "unwritten", json_object_new_boolean(!!(e->flags & UM_EXT_UNWRITTEN)));
	json_object_object_add(o, "inline", json_object_new_boolean(!!(e->flags & UM_EXT_INLINE)));
	return json_object_array_add(p->list, o) ? -ENOMEM : 0;
}

static int one_extent(void *arg, const struct um_ioc_extent *e)
{
	struct printer *p = arg;
	int err = p->list ? print_json(p, e) : print_text(p, e);

	p->extents++;
	p->bytes += e->len;
	if (e->flags & UM_EXT_SHARED)
		p->shared += e->len;
	return err;
}

static int report(const char *path, const struct stat *st, struct printer *p)
{
	char bytes[UM_SIZE_STR], shared[UM_SIZE_STR];
	struct json_object *o;

	if (!p->list) {
		printf("%s: %" PRIu64 " extents, %s, of which shared %s\n", path, p->extents,
			um_size_str(bytes, p->bytes, p->plain),
			um_size_str(shared, p->shared, p->plain));
		return um_finish_output(UM_EXIT_OK);
	}
	o = json_object_new_object();
	if (!o) {
		json_object_put(p->list);
		um_err(ENOMEM, "%s", path);
		return UM_EXIT_FAIL;
	}
	json_object_object_add(o, "file", um_json_text(path));
	json_object_object_add(o, "inode", json_object_new_uint64(st->st_ino));
	json_object_object_add(o, "size", json_object_new_uint64((uint64_t)st->st_size));
	json_object_object_add(o, "mapped_bytes", json_object_new_uint64(p->bytes));
	json_object_object_add(o, "shared_bytes", json_object_new_uint64(p->shared));
	json_object_object_add(o, "extents", p->list);
	return um_json_print(o);
}

int um_cmd_map(int argc, char **argv)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
		{"bytes", no_argument, NULL, 'b'}, {"help", no_argument, NULL, 'h'}, {}};
	struct printer p = {0};
	bool json = false;
	struct stat st;
	int opt, fd, err;

	while ((opt = getopt_long(argc, argv, "bh", longs, NULL)) != -1) {
		if (opt == 'j')
			json = true;
		else if (opt == 'b')
			p.plain = true;
		else
			return um_usage();
	}
	if (argc - optind != 1)
		return um_usage();
	fd = um_open_regular(argv[optind], &st);
	if (fd < 0)
		return UM_EXIT_FAIL;
	if (json)
		p.list = json_object_new_array();
	/* Blocks that exist only as dirty pages of a mapping are sent first, as FIEMAP_FLAG_SYNC does. */
	(void)sync_file_range(fd, 0, 0,
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	err = json && !p.list ? -ENOMEM : um_fd_map(fd, 0, UINT64_MAX, one_extent, &p);
	close(fd);
	if (err) {
		um_err(err, "%s", argv[optind]);
		json_object_put(p.list);
		return UM_EXIT_FAIL;
	}
	return report(argv[optind], &st, &p);
}
