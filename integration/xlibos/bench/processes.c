// SPDX-License-Identifier: GPL-2.0
/*
 * Processes: switching between two, and what a new one costs.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int there[2], back[2];	/* pipes */
static pid_t partner;

static void setup_pipe(void)
{
	char c;

	if (pipe(there) || pipe(back))
		fail("pipe");
	partner = fork();
	if (partner < 0)
		fail("fork");
	if (partner) {
		close(there[0]);
		close(back[1]);
		return;
	}
	close(there[1]);
	close(back[0]);
	while (read(there[0], &c, 1) == 1)
		if (write(back[1], &c, 1) != 1)
			_exit(1);
	_exit(0);
}

/* run_pipe sends a byte there and gets one back: two switches. */
static void run_pipe(long n)
{
	char c = 0;

	while (n--)
		if (write(there[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
			fail("pipe");
}

/* reap waits for a child that has to exit with 0. */
static void reap(pid_t pid, const char *what)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		fail(what);
	if (status) {
		errno = ECHILD;
		fail(what);
	}
}

static void teardown_pipe(void)
{
	close(there[1]);
	reap(partner, "the other end of the pipe");
}

static void run_fork(long n)
{
	while (n--) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		reap(pid, "fork");
	}
}

static void run_vfork(long n)
{
	while (n--) {
		pid_t pid = vfork();

		if (!pid)
			_exit(0);
		reap(pid, "vfork");
	}
}

static int program;

/*
 * setup_exec copies this program to memory, so that executing it asks no file
 * server, if that is what the container's files come from.
 */
static void setup_exec(void)
{
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat st;

	program = memfd_create("sysbench", MFD_CLOEXEC);
	if (self < 0 || program < 0 || fstat(self, &st))
		fail("copy this program");
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(program, self, NULL, left);

		if (n <= 0)
			fail("copy this program");
		left -= n;
	}
	close(self);
}

static void run_exec(long n)
{
	static char *const argv[] = { "sysbench", "exit", NULL };
	static char *const envp[] = { NULL };

	while (n--) {
		pid_t pid = fork();

		if (!pid) {
			fexecve(program, argv, envp);
			_exit(127);
		}
		reap(pid, "fork and exec");
	}
}

const struct bench processes[] = {
	{ .name = "pipe", .setup = setup_pipe, .run = run_pipe, .teardown = teardown_pipe },
	{ .name = "fork", .run = run_fork },
	{ .name = "vfork", .run = run_vfork },
	{ .name = "exec", .setup = setup_exec, .run = run_exec },
	{ 0 },
};
