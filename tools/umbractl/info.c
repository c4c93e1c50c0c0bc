// SPDX-License-Identifier: BSD-3-Clause
/* umbractl info: a pool's geometry and identity, mounted or not. */
#include "umbractl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "umbra/umbra.h"

static void add_num(struct json_object *obj, const char *name, uint64_t v)
{
	json_object_object_add(obj, name, json_object_new_uint64(v));
}

static struct json_object *pool_json(const struct umbra_info *in)
{
	struct json_object *obj = json_object_new_object();

	if (!obj)
		return NULL;
	/* Names and order are those of the daemon's answer. */
	json_object_object_add(obj, "path", um_json_text(in->path));
	json_object_object_add(obj, "label", um_json_text(in->label));
	json_object_object_add(obj, "uuid", um_json_text(in->uuid));
	json_object_object_add(obj, "kind", um_json_text(in->kind));
	add_num(obj, "size", in->size);
	add_num(obj, "total_blocks", in->total_blocks);
	add_num(obj, "free_blocks", in->free_blocks);
	add_num(obj, "inodes", in->inodes);
	add_num(obj, "mounts", in->mounts);
	add_num(obj, "version", in->version);
	add_num(obj, "copies", in->copies);
	add_num(obj, "compat", in->compat);
	add_num(obj, "ro_compat", in->ro_compat);
	add_num(obj, "incompat", in->incompat);
	json_object_object_add(obj, "data_csum", json_object_new_boolean(in->data_csum));
	json_object_object_add(obj, "parity", json_object_new_boolean(in->parity));
	add_num(obj, "journal_bytes", in->journal_bytes);
	add_num(obj, "replayed", in->replayed);
	json_object_object_add(obj, "made_sec", json_object_new_int64(in->made_sec));
	json_object_object_add(obj, "mount_sec", json_object_new_int64(in->mount_sec));
	json_object_object_add(obj, "readonly", json_object_new_boolean(in->readonly));
	json_object_object_add(obj, "clean", json_object_new_boolean(in->clean));
	add_num(obj, "errors", in->errors);
	json_object_object_add(obj, "options", json_object_new_string("")); /* of a mount */
	return obj;
}

/* From a pool's own bytes. */
static int info_from_pool(const char *path, struct json_object **out)
{
	struct umbra_info info;
	int err = umbra_info_pool(path, &info);

	if (err)
		return err;
	*out = pool_json(&info);
	return *out ? 0 : -ENOMEM;
}

/* From the daemon, when path is a file or directory of a mount. -ENOTTY: it is not. */
static int info_from_mount(const char *path, struct json_object **out)
{
	struct stat st;
	int err = um_path_text(path, 1, out);

	/* A directory that is on no mount is not a pool either. */
	if (err == -ENOTTY && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return -EMEDIUMTYPE;
	return err;
}

int um_cmd_info(int argc, char **argv)
{
	struct json_object *obj = NULL;
	struct um_show show;
	int err;

	if (!um_show_arguments(argc, argv, &show))
		return um_usage();
	err = info_from_mount(show.path, &obj);
	if (err == -ENOTTY)
		err = info_from_pool(show.path, &obj);
	if (err == -EMEDIUMTYPE) {
		um_err(0, "%s: neither a pool nor on a mounted umbrafs", show.path);
		return UM_EXIT_FAIL;
	}
	if (err) {
		um_err(err, "%s", show.path);
		return UM_EXIT_FAIL;
	}
	return um_show(&show, obj);
}
