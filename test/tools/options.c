// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void misuse(const char *what)
{
	fprintf(stderr, "misuse: %s\n%s", what, usage);
	exit(2);
}

int parse_number(const char *text)
{
	char *end;
	long value = strtol(text, &end, 0);

	if (!*text || *end || value < 0 || value > INT_MAX)
		misuse(text);
	return value;
}

union addr parse_endpoint(const char *text, uint16_t default_port)
{
	union addr addr;

	if (!addr_parse_endpoint(&addr, text, default_port))
		misuse(text);
	return addr;
}

static const struct option_spec *find(const struct option_spec *specs, const char *name)
{
	while (specs->name && strcmp(specs->name, name))
		specs++;
	if (!specs->name)
		misuse(name);
	return specs;
}

static void apply(const struct option_spec *spec, const char *value)
{
	if (!value)
		misuse(spec->name);
	switch (spec->kind) {
	case OPTION_FLAG:
		*spec->flag = true;
		break;
	case OPTION_NUMBER:
		*spec->number = parse_number(value);
		break;
	case OPTION_TEXT:
		*spec->text = value;
		break;
	case OPTION_CALL:
		spec->call(value);
		break;
	}
}

int parse_options(const struct option_spec *specs, int argc, char **argv)
{
	int positional = 0;

	for (int i = 1; i < argc; i++) {
		const struct option_spec *spec;

		if (strncmp(argv[i], "--", 2)) {
			argv[++positional] = argv[i];
			continue;
		}
		spec = find(specs, argv[i] + 2);
		apply(spec, spec->kind == OPTION_FLAG ? "" : argv[++i]);
	}
	return positional;
}
