/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Lets the distribution's libbpf.a and libelf.a, which are PIE but not PIC, be linked into one shared
 * object that needs nothing but libc, and no newer one than Node does (glibc 2.28). Three symbols
 * stand in the way:
 *  - libbpf.a reads `stderr` relative to the program counter, which no shared object may do with a
 *    symbol of libc: build.sh renames it to the hidden copy here.
 *  - libelf.a keeps its error in local-exec thread-local storage, which only an executable may use: the
 *    three functions around it are replaced. Messages that quote elf_errmsg() lose their detail.
 *  - fstat is a symbol of glibc 2.33.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HIDDEN __attribute__((visibility("hidden")))

HIDDEN FILE *libbpf_stderr;

/* Before libbpf's own constructors, if it ever has some. */
__attribute__((constructor(101))) static void copy_stderr(void)
{
	libbpf_stderr = stderr;
}

static __thread int elf_error;

HIDDEN int elf_errno(void)
{
	int error = elf_error;

	elf_error = 0;
	return error;
}

HIDDEN void __libelf_seterrno(int error)
{
	elf_error = error;
}

HIDDEN const char *elf_errmsg(int error)
{
	return error || elf_error ? "libelf error" : NULL;
}

HIDDEN int fstat(int fd, struct stat *st)
{
	return syscall(SYS_newfstatat, fd, "", st, AT_EMPTY_PATH);
}
