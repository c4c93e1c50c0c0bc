// SPDX-License-Identifier: BSD-3-Clause
/* umbractl stat: the live counters of a mount. */
#include "umbractl.h"

#include <errno.h>

int um_cmd_stat(int argc, char **argv)
{
	struct json_object *obj = NULL;
	struct um_show show;
	int err;

	if (!um_show_arguments(argc, argv, &show))
		return um_usage();
	err = um_path_text(show.path, 0, &obj);
	if (err == -ENOTTY) {
		um_err(0, "%s: not on a mounted umbrafs", show.path);
		return UM_EXIT_FAIL;
	}
	if (err) {
		um_err(err, "%s", show.path);
		return UM_EXIT_FAIL;
	}
	return um_show(&show, obj);
}
