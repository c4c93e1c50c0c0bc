// SPDX-License-Identifier: BSD-3-Clause
/* umbractl trim: returns free space of a mounted pool to the host. */
#include "umbractl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char *reason(int err)
{
	switch (err) {
	case -ENOTTY:
		return "not on a mounted umbrafs";
	case -EOPNOTSUPP:
		return "the pool lies on something that takes no space back (a DAX device, or a "
		       "device or file without discard)";
	default:
		return strerror(-err);
	}
}

int um_cmd_trim(int argc, char **argv)
{
	/* As fstrim(8), which works too. */
	struct fstrim_range range = {.len = UINT64_MAX};
	bool json = false, plain = false;
	char size[UM_SIZE_STR];
	int fd, err = 0;

	if (!um_size_options(argc, argv, &json, &plain) || argc - optind != 1)
		return um_usage();
	fd = open(argv[optind], O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		err = -errno;
	if (!err)
		err = um_fd_info(fd, NULL);
	if (!err && ioctl(fd, FITRIM, &range))
		err = -errno;
	if (fd >= 0)
		close(fd);
	if (err) {
		um_err(0, "%s: %s", argv[optind], reason(err));
		return UM_EXIT_FAIL;
	}
	if (json) {
		struct json_object *obj = json_object_new_object();

		json_object_object_add(obj, "trimmed", json_object_new_uint64(range.len));
		return um_json_print(obj);
	}
	printf("%s: %s trimmed\n", argv[optind], um_size_str(size, range.len, plain));
	return um_finish_output(UM_EXIT_OK);
}
