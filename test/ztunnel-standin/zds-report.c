// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include "standin.h"
#include "zds.h"

/* "" is null. */
static void put(struct json *json, const char *key, const char *value)
{
	json_str(json, key, *value ? value : NULL);
}

void zds_report(const char *what, const struct zds_subject *subject, const char *error)
{
	static const struct zds_subject nothing = { "", "", "", "", 0 };
	struct json json;

	if (!subject)
		subject = &nothing;
	json_open(&json);
	json_str(&json, "event", "zds");
	json_str(&json, "standin", config.name);
	json_str(&json, "what", what);
	put(&json, "uid", subject->uid);
	put(&json, "name", subject->name);
	put(&json, "namespace", subject->namespace);
	put(&json, "service_account", subject->service_account);
	if (subject->netns)
		json_int(&json, "netns", subject->netns);
	else
		json_raw(&json, "netns", NULL);
	json_str(&json, "error", error);
	json_bool(&json, "ready", zds_is_ready());
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}
