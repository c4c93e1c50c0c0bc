/* SPDX-License-Identifier: BSD-3-Clause */
/* A pool's health as JSON, the same from the daemon and from a pool read by umbractl. */
#ifndef UM_FUSE_HEALTH_H
#define UM_FUSE_HEALTH_H

#include <json-c/json.h>

#include "umbra/umbra.h"

/* An umbra_event_fn: arg is the JSON array that the event is added to. */
int um_health_event(void *arg, const struct umbra_event *event);
/* Adds the numbers, and that array, as members of obj. */
void um_health_fill(
	struct json_object *obj, const struct umbra_health *health, struct json_object *events);

#endif
