// SPDX-License-Identifier: BSD-3-Clause
/* umbractl dedupe: shares what is equal at equal offsets. */
#include "umbractl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define STEP (16ull << 20)  /* compared under one lock */
#define LEAST (64ull << 10) /* a differing range is not split further */
#define BLOCK 4096ull

struct pair {
	int src, dst;
	uint64_t shared;
};

/* Shares [off, off+len) where equal, halving down to LEAST. */
static int dedupe_range(struct pair *p, uint64_t off, uint64_t len)
{
	uint64_t done, half;
	bool same;
	int err;

	err = um_fd_dedupe(p->src, off, len, p->dst, off, &same, &done);
	p->shared += done;
	if (err || same || len <= LEAST)
		return err;
	if (done) {
		/* Part of it was shared before a difference was found. */
		off += done;
		len -= done;
	}
	half = (len / 2 + BLOCK - 1) & ~(BLOCK - 1);
	if (!half || half >= len)
		return 0;
	err = dedupe_range(p, off, half);
	return err ? err : dedupe_range(p, off + half, len - half);
}

static int dedupe_file(struct pair *p, uint64_t src_size, uint64_t dst_size)
{
	uint64_t len = src_size < dst_size ? src_size : dst_size, off;
	int err = 0;

	/* The last, partial block can be shared only if both files end in it. */
	if (src_size != dst_size)
		len &= ~(BLOCK - 1);
	for (off = 0; off < len && !err; off += STEP)
		err = dedupe_range(p, off, len - off < STEP ? len - off : STEP);
	return err;
}

static int report(struct json_object *list, const char *path, const struct stat *st,
	const struct pair *p, bool plain)
{
	char shared[UM_SIZE_STR], size[UM_SIZE_STR];
	struct json_object *o;

	if (!list) {
		printf("%s: %s of %s shared\n", path, um_size_str(shared, p->shared, plain),
			um_size_str(size, (uint64_t)st->st_size, plain));
		return 0;
	}
	o = json_object_new_object();
	if (!o)
		return -ENOMEM;
	json_object_object_add(o, "file", um_json_text(path));
	json_object_object_add(o, "size", json_object_new_uint64((uint64_t)st->st_size));
	json_object_object_add(o, "shared_bytes", json_object_new_uint64(p->shared));
	return json_object_array_add(list, o) ? -ENOMEM : 0;
}

static int dedupe_against(int src, const struct stat *src_st, const char *src_path,
	const char *path, struct json_object *list, bool plain)
{
	struct pair p = {.src = src};
	struct stat st;
	int err = 0;

	p.dst = um_open_regular(path, &st);
	if (p.dst < 0)
		return -1;
	if (st.st_dev != src_st->st_dev) {
		um_err(0, "%s and %s are on different filesystems", src_path, path);
		err = -EXDEV;
	} else if (st.st_ino == src_st->st_ino) {
		um_err(0, "%s and %s are the same file", src_path, path);
		err = -EINVAL;
	} else {
		err = dedupe_file(&p, (uint64_t)src_st->st_size, (uint64_t)st.st_size);
		if (err)
			um_err(err, "%s", path);
		else
			err = report(list, path, &st, &p, plain);
	}
	close(p.dst);
	return err;
}

int um_cmd_dedupe(int argc, char **argv)
{
	int src, i, code = UM_EXIT_OK;
	struct json_object *list = NULL;
	bool plain = false, json = false;
	struct stat st;

	if (!um_size_options(argc, argv, &json, &plain) || argc - optind < 2)
		return um_usage();
	src = um_open_regular(argv[optind], &st);
	if (src < 0)
		return UM_EXIT_FAIL;
	if (json)
		list = json_object_new_array();
	for (i = optind + 1; i < argc; i++)
		if (dedupe_against(src, &st, argv[optind], argv[i], list, plain))
			code = UM_EXIT_FAIL;
	close(src);
	if (list && um_json_print(list) != UM_EXIT_OK)
		code = UM_EXIT_FAIL;
	return um_finish_output(code);
}
