// SPDX-License-Identifier: Apache-2.0
/* Command lines of the test programs: --name value, --flag, and positional arguments anywhere. */
#ifndef TEST_OPTIONS_H
#define TEST_OPTIONS_H

#include "net.h"

enum option_kind {
	OPTION_FLAG,
	OPTION_NUMBER,
	OPTION_TEXT,
	OPTION_CALL,
};

/* One of the targets, as kind says. */
struct option_spec {
	const char *name;
	enum option_kind kind;
	union {
		bool *flag;
		int *number;
		const char **text;
		void (*call)(const char *value);
	};
};

/* clang-format off */
#define FLAG(n, target) { .name = (n), .kind = OPTION_FLAG, .flag = (target) }
#define NUMBER(n, target) { .name = (n), .kind = OPTION_NUMBER, .number = (target) }
#define TEXT(n, target) { .name = (n), .kind = OPTION_TEXT, .text = (target) }
#define CALL(n, function) { .name = (n), .kind = OPTION_CALL, .call = (function) }
/* clang-format on */

/* Of the program; shown on misuse. */
extern const char usage[];

/* Ends the program with exit code 2. */
void __attribute__((noreturn)) misuse(const char *what);

/* specs end with a NULL name. Gives the number of positional arguments, which it moves to
 * argv[1]... */
int parse_options(const struct option_spec *specs, int argc, char **argv);

int parse_number(const char *text);
union addr parse_endpoint(const char *text, uint16_t default_port);

#endif
