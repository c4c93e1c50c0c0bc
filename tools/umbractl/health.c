// SPDX-License-Identifier: BSD-3-Clause
/* umbractl health: memory failures and their consequences. */
#include "umbractl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fuse/health.h"

static int from_pool(const char *path, struct json_object **out)
{
	struct json_object *obj = json_object_new_object(), *events = json_object_new_array();
	struct umbra_health health = {0};
	int err;

	if (!obj || !events)
		return -ENOMEM;
	err = umbra_health_pool(path, &health, um_health_event, events);
	um_health_fill(obj, &health, events);
	if (err)
		json_object_put(obj);
	else
		*out = obj;
	return err;
}

static uint64_t number(struct json_object *obj, const char *name)
{
	struct json_object *value;

	return json_object_object_get_ex(obj, name, &value) ? json_object_get_uint64(value) : 0;
}

static const char *text(struct json_object *obj, const char *name)
{
	struct json_object *value;

	return json_object_object_get_ex(obj, name, &value) ? json_object_get_string(value) : "";
}

/* Path names may have any bytes: those that could move the cursor are shown as '?'. */
static void print_path(const char *path)
{
	for (; *path; path++)
		putchar((unsigned char)*path < ' ' || *path == 0x7f ? '?' : *path);
}

static void print_event(struct json_object *event)
{
	time_t sec = (time_t)number(event, "sec");
	struct json_object *files;
	char when[32] = "";
	struct tm tm;

	if (localtime_r(&sec, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	printf("%s  block %llu  %s  %s: %s\n", when, (unsigned long long)number(event, "lba"),
		text(event, "kind"), text(event, "cause"), text(event, "done"));
	if (!json_object_object_get_ex(event, "files", &files))
		return;
	for (size_t i = 0; i < json_object_array_length(files); i++) {
		struct json_object *file = json_object_array_get_idx(files, i);
		const char *path = text(file, "path");

		fputs("    ", stdout);
		if (*path)
			print_path(path);
		else
			printf("inode %llu", (unsigned long long)number(file, "ino"));
		if (!strcmp(text(event, "kind"), "file data"))
			printf("  at %llu", (unsigned long long)number(file, "off"));
		putchar('\n');
	}
	if (number(event, "owners") > json_object_array_length(files))
		printf("    and %llu more\n",
			(unsigned long long)(number(event, "owners") -
					     json_object_array_length(files)));
}

static void print_health(struct json_object *obj)
{
	struct json_object *events;

	if (*text(obj, "stopped"))
		printf("read-only          %s: %s\n", text(obj, "stopped_by"),
			text(obj, "stopped"));
	printf("pages lost         %llu\n", (unsigned long long)number(obj, "lost"));
	printf("blocks moved       %llu\n", (unsigned long long)number(obj, "moved"));
	printf("blocks retired     %llu\n", (unsigned long long)number(obj, "retired"));
	printf("checksum errors    %llu\n", (unsigned long long)number(obj, "checksum_errors"));
	if (!json_object_object_get_ex(obj, "events", &events))
		return;
	for (size_t i = 0; i < json_object_array_length(events); i++)
		print_event(json_object_array_get_idx(events, i));
}

int um_cmd_health(int argc, char **argv)
{
	struct json_object *obj = NULL;
	struct um_show show;
	int err;

	if (!um_show_arguments(argc, argv, &show))
		return um_usage();
	err = um_path_text(show.path, 2, &obj);
	if (err == -ENOTTY)
		err = from_pool(show.path, &obj);
	if (err) {
		um_err(err, "%s", show.path);
		return UM_EXIT_FAIL;
	}
	if (show.json)
		return um_json_print(obj);
	print_health(obj);
	json_object_put(obj);
	return um_finish_output(UM_EXIT_OK);
}
