// SPDX-License-Identifier: BSD-3-Clause
/* umbractl map: where a file's bytes are, and how they are shared. */
#include "umbractl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHADOWS_STEP (4ull << 30) /* examined per request */

struct printer {
	struct json_object *list; /* JSON, else NULL: text */
	bool plain;
	int shadows_of; /* the file, with --shadows, else -1 */
	uint64_t extents, bytes, shared, shadows, cached;
};

/* ---- shadows of an extent ------------------------------------------------------------------------ */

static int shadow_text(struct printer *p, const struct um_ioc_shadow *s)
{
	char off[UM_SIZE_STR], len[UM_SIZE_STR];

	printf("%16s %14s %14" PRIu64 " %8" PRIu64 "  shadow\n", um_size_str(off, s->off, true),
		um_size_str(len, s->len, p->plain), (uint64_t)s->lba, (uint64_t)s->sharers);
	return ferror(stdout) ? -EIO : 0;
}

static int shadow_json(struct json_object *list, const struct um_ioc_shadow *s)
{
	struct json_object *o = json_object_new_object();

	if (!o)
		return -ENOMEM;
	json_object_object_add(o, "offset", json_object_new_uint64(s->off));
	json_object_object_add(o, "length", json_object_new_uint64(s->len));
	json_object_object_add(o, "lba", json_object_new_uint64(s->lba));
	json_object_object_add(o, "shadows", json_object_new_uint64(s->sharers));
	return json_object_array_add(list, o) ? -ENOMEM : 0;
}

/* The file's shadows in a range; list: JSON, or NULL. */
static int range_shadows(struct printer *p, uint64_t off, uint64_t end, struct json_object *list)
{
	struct um_ioc_shadows page;
	int err = 0;

	while (!err && off < end) {
		memset(&page, 0, offsetof(struct um_ioc_shadows, shadow));
		page.at = off;
		page.len = end - off < SHADOWS_STEP ? end - off : SHADOWS_STEP;
		if (ioctl(p->shadows_of, UM_IOC_SHADOWS, &page) < 0)
			return -errno;
		if (page.count > sizeof(page.shadow) / sizeof(page.shadow[0]) || page.next <= off)
			return -EPROTO;
		for (uint32_t i = 0; !err && i < page.count; i++) {
			const struct um_ioc_shadow *s = &page.shadow[i];

			err = list ? shadow_json(list, s) : shadow_text(p, s);
			p->shadows++;
			p->cached += s->len;
		}
		off = page.next;
	}
	return err;
}

static int extent_shadows(
	struct printer *p, const struct um_ioc_extent *e, struct json_object *list)
{
	if (p->shadows_of < 0 || e->flags & (UM_EXT_INLINE | UM_EXT_UNWRITTEN))
		return 0;
	return range_shadows(p, e->off, e->off + e->len, list);
}

/* ---- extents --------------------------------------------------------------------------------------- */

static int print_text(struct printer *p, const struct um_ioc_extent *e)
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
	return ferror(stdout) ? -EIO : extent_shadows(p, e, NULL);
}

static int print_json(struct printer *p, const struct um_ioc_extent *e)
{
	struct json_object *o = json_object_new_object(), *list;
	int err = 0;

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
	if (p->shadows_of >= 0) {
		list = json_object_new_array();
		err = list ? extent_shadows(p, e, list) : -ENOMEM;
		json_object_object_add(o, "shadows", list);
	}
	return json_object_array_add(p->list, o) ? -ENOMEM : err;
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
		if (p->shadows_of >= 0)
			printf("%s: %" PRIu64 " shadows, %s\n", path, p->shadows,
				um_size_str(bytes, p->cached, p->plain));
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
	if (p->shadows_of >= 0) {
		json_object_object_add(o, "shadow_count", json_object_new_uint64(p->shadows));
		json_object_object_add(o, "shadow_bytes", json_object_new_uint64(p->cached));
	}
	json_object_object_add(o, "extents", p->list);
	return um_json_print(o);
}

int um_cmd_map(int argc, char **argv)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
		{"bytes", no_argument, NULL, 'b'}, {"shadows", no_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'}, {}};
	struct printer p = {.shadows_of = -1};
	bool json = false, shadows = false;
	struct stat st;
	int opt, fd, err;

	while ((opt = getopt_long(argc, argv, "bh", longs, NULL)) != -1) {
		if (opt == 'j')
			json = true;
		else if (opt == 'b')
			p.plain = true;
		else if (opt == 's')
			shadows = true;
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
	if (shadows)
		p.shadows_of = fd;
	/* Dirty pages of mappings are written first, as FIEMAP_FLAG_SYNC does. */
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
