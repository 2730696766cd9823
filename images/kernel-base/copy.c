/* copy SOURCE TARGET: what a kernel image does for Virtink, which runs it with TARGET as its argument. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

static int fail(const char *path)
{
	fprintf(stderr, "copy: %s: %s\n", path, strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	ssize_t sent;
	int from, to;

	if (argc != 3) {
		fprintf(stderr, "usage: copy SOURCE TARGET\n");
		return 2;
	}
	if ((from = open(argv[1], O_RDONLY | O_CLOEXEC)) < 0)
		return fail(argv[1]);
	if ((to = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) < 0)
		return fail(argv[2]);
	while ((sent = sendfile(to, from, NULL, 1 << 26)) > 0)
		;
	if (sent < 0 || close(to) < 0)
		return fail(argv[2]);
	return 0;
}
