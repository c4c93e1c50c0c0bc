/* SPDX-License-Identifier: BSD-3-Clause */
/* Live counters and pool information as JSON. */
#include "fuse/text.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/direct.h"
#include "fuse/health.h"
#include "fuse/ioctl.h"
#include "fuse/remount.h"
#include "fuse/uring.h"
#include "fuse/view.h"
#include "fuse/worker.h"

static void add_number(void *arg, const char *name, uint64_t value)
{
	json_object_object_add(arg, name, json_object_new_uint64(value));
}

static void add_string(struct json_object *obj, const char *name, const char *value)
{
	json_object_object_add(obj, name, json_object_new_string(value));
}

static void add_bool(struct json_object *obj, const char *name, bool value)
{
	json_object_object_add(obj, name, json_object_new_boolean(value));
}

static void fill_stat(struct um_mount *m, struct json_object *obj)
{
	umbra_stat(m->fs, add_number, obj);
	add_number(obj, "fuse_requests", atomic_load_explicit(&m->requests, memory_order_relaxed));
	add_number(obj, "fuse_threads", um_workers_count(m->workers));
	add_number(obj, "fuse_takeovers", um_workers_takeovers(m->workers));
	add_number(obj, "uring_threads", um_uring_threads(m->uring));
	um_views_stat(m->views, add_number, obj);
	um_direct_stat(m->direct, add_number, obj);
}

static int fill_info(struct um_mount *m, struct json_object *obj)
{
	char options[sizeof(((struct um_ioc_mount *)0)->options)];
	struct umbra_info info;
	int err = umbra_info(m->fs, &info);

	if (err)
		return err;
	add_string(obj, "path", info.path);
	add_string(obj, "label", info.label);
	add_string(obj, "uuid", info.uuid);
	add_string(obj, "kind", info.kind);
	add_number(obj, "size", info.size);
	add_number(obj, "total_blocks", info.total_blocks);
	add_number(obj, "free_blocks", info.free_blocks);
	add_number(obj, "inodes", info.inodes);
	add_number(obj, "mounts", info.mounts);
	add_number(obj, "version", info.version);
	add_number(obj, "copies", info.copies);
	add_number(obj, "compat", info.compat);
	add_number(obj, "ro_compat", info.ro_compat);
	add_number(obj, "incompat", info.incompat);
	json_object_object_add(obj, "data_csum", json_object_new_boolean(info.data_csum));
	json_object_object_add(obj, "parity", json_object_new_boolean(info.parity));
	add_number(obj, "journal_bytes", info.journal_bytes);
	add_number(obj, "replayed", info.replayed);
	json_object_object_add(obj, "made_sec", json_object_new_int64(info.made_sec));
	json_object_object_add(obj, "mount_sec", json_object_new_int64(info.mount_sec));
	add_bool(obj, "readonly", info.readonly);
	add_bool(obj, "clean", info.clean);
	add_number(obj, "errors", info.errors);
	um_remount_options(m, options, sizeof(options));
	add_string(obj, "options", options);
	return 0;
}

static int fill_health(struct um_mount *m, struct json_object *obj)
{
	struct json_object *events = json_object_new_array();
	struct umbra_health health;
	int err;

	if (!events)
		return -ENOMEM;
	err = umbra_health(m->fs, &health, um_health_event, events);
	um_health_fill(obj, &health, events);
	return err;
}

int um_text_make(struct um_mount *m, unsigned what, char **out)
{
	struct json_object *obj;
	int err = 0;

	*out = NULL;
	if (what > UM_TEXT_HEALTH)
		return -EINVAL;
	obj = json_object_new_object();
	if (!obj)
		return -ENOMEM;
	if (what == UM_TEXT_STAT)
		fill_stat(m, obj);
	else if (what == UM_TEXT_HEALTH)
		err = fill_health(m, obj);
	else
		err = fill_info(m, obj);
	if (!err) {
		*out = strdup(json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN));
		err = *out ? 0 : -ENOMEM;
	}
	json_object_put(obj);
	return err;
}
