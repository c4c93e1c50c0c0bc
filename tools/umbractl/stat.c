// SPDX-License-Identifier: BSD-3-Clause
/* umbractl stat: the live counters of a mount. */
#include "umbractl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_counters(const char *path, struct json_object **out)
{
	struct stat st;
	int fd, err;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return -ENOTTY;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -errno;
	err = um_fd_info(fd, NULL);
	if (!err)
		err = um_fd_text(fd, 0, out);
	close(fd);
	return err;
}

int um_cmd_stat(int argc, char **argv)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
		{"bytes", no_argument, NULL, 'b'}, {"help", no_argument, NULL, 'h'}, {}};
	bool json = false, plain = false;
	struct json_object *obj = NULL;
	int opt, err;

	while ((opt = getopt_long(argc, argv, "bh", longs, NULL)) != -1) {
		if (opt == 'j')
			json = true;
		else if (opt == 'b')
			plain = true;
		else
			return um_usage();
	}
	if (argc - optind != 1)
		return um_usage();
	err = read_counters(argv[optind], &obj);
	if (err == -ENOTTY) {
		um_err(0, "%s: not on a mounted umbrafs", argv[optind]);
		return UM_EXIT_FAIL;
	}
	if (err) {
		um_err(err, "%s", argv[optind]);
		return UM_EXIT_FAIL;
	}
	if (json)
		return um_json_print(obj);
	um_json_table(obj, plain);
	json_object_put(obj);
	return um_finish_output(UM_EXIT_OK);
}
