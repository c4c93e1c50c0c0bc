// SPDX-License-Identifier: BSD-3-Clause
/* umbractl grow: enlarges a pool, mounted or not. */
#include "umbractl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "umbra/umbra.h"

struct args {
	const char *path;
	uint64_t size;
	bool sparse, json;
};

static bool parse(int argc, char **argv, struct args *out)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
		{"sparse", no_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'}, {}};
	int opt;

	*out = (struct args){0};
	while ((opt = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (opt == 'j')
			out->json = true;
		else if (opt == 's')
			out->sparse = true;
		else
			return false;
	}
	if (argc - optind != 2)
		return false;
	out->path = argv[optind];
	out->size = UMBRA_GROW_ALL;
	return !strcmp(argv[optind + 1], "max") || um_parse_size(argv[optind + 1], &out->size);
}

/* A directory of a mount. -ENOTTY: it is not; a file may well be a pool that lies on the mount of
 * another one. */
static int grow_mount(const struct args *args, struct um_ioc_grow *io)
{
	int fd = open(args->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	if (fd < 0)
		return errno == ENOTDIR ? -ENOTTY : -errno;
	err = um_fd_info(fd, NULL);
	if (err == -ENOTTY)
		err = -EISDIR;
	if (!err && ioctl(fd, UM_IOC_GROW, io))
		err = -errno;
	close(fd);
	return err;
}

static int grow_pool(const struct args *args, struct um_ioc_grow *io)
{
	struct umbra_fs *fs;
	uint64_t was = 0, size = 0;
	int err = umbra_open(args->path, NULL, &fs), err2;

	if (err)
		return err;
	err = umbra_grow(fs, args->size, args->sparse, &was, &size);
	io->was = was;
	io->size = size;
	err2 = umbra_close(fs);
	return err ? err : err2;
}

/* Errors with a specific meaning here. */
static const char *reason(int err)
{
	switch (err) {
	case -EINVAL:
		return "it is larger than that; pools do not shrink";
	case -ENOSPC:
		return "no room: the device is smaller than that, or the file's filesystem is full";
	case -ENOMEM:
	case -EOPNOTSUPP:
		return "cannot grow that far while it is mounted: unmount it first";
	case -E2BIG:
		return "has grown too often: there is no place for another seam";
	case -EBUSY:
		return "is in use: if it is mounted, name the mount point";
	case -EISDIR:
		return "not on a mounted umbrafs";
	default:
		return strerror(-err);
	}
}

static int print(const struct args *args, const struct um_ioc_grow *io)
{
	char size[UM_SIZE_STR], was[UM_SIZE_STR];

	if (args->json) {
		struct json_object *obj = json_object_new_object();

		json_object_object_add(obj, "was", json_object_new_uint64(io->was));
		json_object_object_add(obj, "size", json_object_new_uint64(io->size));
		return um_json_print(obj);
	}
	if (io->was == io->size)
		printf("%s: has %s, and stays so\n", args->path,
			um_size_str(size, io->size, false));
	else
		printf("%s: has %s, had %s\n", args->path, um_size_str(size, io->size, false),
			um_size_str(was, io->was, false));
	return um_finish_output(UM_EXIT_OK);
}

int um_cmd_grow(int argc, char **argv)
{
	struct um_ioc_grow io = {0};
	struct args args;
	int err;

	if (!parse(argc, argv, &args))
		return um_usage();
	io.size = args.size;
	io.sparse = args.sparse;
	err = grow_mount(&args, &io);
	if (err == -ENOTTY)
		err = grow_pool(&args, &io);
	if (err) {
		um_err(0, "%s: %s", args.path, reason(err));
		return UM_EXIT_FAIL;
	}
	return print(&args, &io);
}
