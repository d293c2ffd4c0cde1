// SPDX-License-Identifier: Apache-2.0
/* A small parent: the peak that the kernel tells of a child counts the memory of who forked it. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static void __attribute__((noreturn)) become(char **argv)
{
	int null = open("/dev/null", O_WRONLY);

	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	execv(argv[0], argv);
	_exit(127);
}

static int64_t us(struct timeval time)
{
	return time.tv_sec * 1000000LL + time.tv_usec;
}

void measure(char **argv)
{
	uint64_t begin = now_ns();
	struct rusage used;
	struct json json;
	pid_t child = fork();
	int status;

	if (!child)
		become(argv);
	if (child < 0 || wait4(child, &status, 0, &used) < 0)
		die(argv[0]);
	json_open(&json);
	json_int(&json, "code", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	json_int(&json, "ns", now_ns() - begin);
	json_int(&json, "cpu_us", us(used.ru_utime) + us(used.ru_stime));
	json_int(&json, "peak_kib", used.ru_maxrss);
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}
