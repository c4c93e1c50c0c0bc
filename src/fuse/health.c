/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuse/health.h"

#include <errno.h>
#include <string.h>

static const char *done_word(enum umbra_event_done done)
{
	switch (done) {
	case UMBRA_DONE_LOST:
		return "lost";
	case UMBRA_DONE_MOVED:
		return "repaired";
	case UMBRA_DONE_REWRITTEN:
		return "rewritten";
	case UMBRA_DONE_RETIRED:
		return "retired";
	case UMBRA_DONE_ONE_COPY:
		return "one-copy";
	case UMBRA_DONE_NO_COPY:
		return "no-copy";
	}
	return "unknown";
}

static void add_number(struct json_object *obj, const char *name, uint64_t value)
{
	json_object_object_add(obj, name, json_object_new_uint64(value));
}

static void add_string(struct json_object *obj, const char *name, const char *value)
{
	json_object_object_add(obj, name, json_object_new_string(value));
}

int um_health_event(void *arg, const struct umbra_event *event)
{
	struct json_object *obj = json_object_new_object(), *owners = json_object_new_array();

	if (!obj || !owners)
		return -ENOMEM;
	add_number(obj, "number", event->number);
	json_object_object_add(obj, "sec", json_object_new_int64(event->sec));
	add_number(obj, "lba", event->lba);
	add_number(obj, "other", event->other);
	json_object_object_add(obj, "kind", json_object_new_string(umbra_kind_name(event->kind)));
	json_object_object_add(obj, "cause",
		json_object_new_string(
			event->cause == UMBRA_CAUSE_CHECKSUM ? "checksum" : "memory"));
	json_object_object_add(obj, "done", json_object_new_string(done_word(event->done)));
	add_number(obj, "owners", event->owners);
	for (unsigned i = 0; i < event->nowner; i++) {
		struct json_object *owner = json_object_new_object();

		add_number(owner, "ino", event->owner[i].ino);
		add_number(owner, "off", event->owner[i].off);
		json_object_object_add(owner, "path", json_object_new_string(event->owner[i].path));
		json_object_array_add(owners, owner);
	}
	json_object_object_add(obj, "files", owners);
	json_object_array_add(arg, obj);
	return 0;
}

void um_health_fill(
	struct json_object *obj, const struct umbra_health *health, struct json_object *events)
{
	add_number(obj, "lost", health->lost);
	add_number(obj, "moved", health->moved);
	add_number(obj, "retired", health->retired);
	add_number(obj, "checksum_errors", health->checksum_errors);
	if (health->stopped) {
		add_string(obj, "stopped", strerror(-health->stopped));
		add_string(obj, "stopped_by", health->stopped_by ? health->stopped_by : "request");
	}
	json_object_object_add(obj, "events", events);
}
