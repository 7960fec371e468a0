// SPDX-License-Identifier: GPL-2.0
/*
 * main() of every torture test. The tests run in a child, so that one that crashes
 * or hangs is reported, and none is the init of a container.
 */
#include "torture.h"

#include <stdarg.h>
#include <stdatomic.h>

/* Reports that are printed; the rest is counted. */
#define MAX_REPORTS 20

/* Seconds beyond its time until a program counts as hanging. */
#define PATIENCE 300

static struct {
	atomic_long runs, bads;
	atomic_int test;
} *counts;

static void say(int fd, const char *kind, const char *format, va_list args)
{
	char text[600];
	int n = snprintf(text, sizeof(text), "%s: %s: ", kind, tests[counts->test].name);
	int m = vsnprintf(text + n, sizeof(text) - n - 1, format, args);

	n += m < (int)sizeof(text) - n - 1 ? m : (int)sizeof(text) - n - 2;
	text[n++] = '\n';
	if (write(fd, text, n) != n)
		_exit(2);
}

void bad(const char *format, ...)
{
	va_list args;

	if (atomic_fetch_add(&counts->bads, 1) >= MAX_REPORTS)
		return;
	va_start(args, format);
	say(STDOUT_FILENO, "bad", format, args);
	va_end(args);
}

void note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(STDERR_FILENO, "note", format, args);
	va_end(args);
}

void ran(long n)
{
	atomic_fetch_add(&counts->runs, n);
}

void fail(const char *what)
{
	bad("%s: %s", what, strerror(errno));
	_exit(1);
}

void (*on_crash)(void);

static const int crashes[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS };

static void crash(int sig, siginfo_t *info, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

	/* Once: the code may not be readable. The return is into the same again. */
	signal(sig, SIG_DFL);
	bad("process %d: signal %d, code %d, address %p, ip %#llx, sp %#llx, ax %#llx, cx %#llx", getpid(), sig,
	    info->si_code, info->si_addr, r[REG_RIP], r[REG_RSP], r[REG_RAX], r[REG_RCX]);
	if (on_crash)
		on_crash();
	raise(sig);
}

static void report_crashes(void)
{
	static char stack[65536];
	const stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction sa = { .sa_sigaction = crash, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	if (sigaltstack(&alternate, NULL))
		fail("sigaltstack");
	for (unsigned int i = 0; i < ARRAY_SIZE(crashes); i++)
		sigaction(crashes[i], &sa, NULL);
}

void no_crash_reports(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(crashes); i++)
		signal(crashes[i], SIG_DFL);
}

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

void doze(double seconds)
{
	struct timespec t = { seconds, (seconds - (long)seconds) * 1e9 };

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

unsigned long draw(unsigned long *state)
{
	/* xorshift64* of Vigna, "An experimental exploration of Marsaglia's xorshift generators" */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dul;
}

pid_t forked(void)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("fork");
	return pid;
}

int reap(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			fail("waitpid");
	return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

static struct {
	enum mode mode;
	bool rewriting;
} kernel;

/* ask_kernel reads /proc/xlibos once, before anything else is done. */
static void ask_kernel(void)
{
	FILE *f = fopen("/proc/xlibos", "re");
	char name[64], value[64];

	if (!f) {
		if (errno != ENOENT)
			fail("/proc/xlibos");
		return;
	}
	while (fscanf(f, "%63s %63s", name, value) == 2) {
		if (!strcmp(name, "rewriting"))
			kernel.rewriting = !strcmp(value, "on");
		if (strcmp(name, "mode"))
			continue;
		if (!strcmp(value, "off"))
			kernel.mode = MODE_OFF;
		else if (!strcmp(value, "bounce"))
			kernel.mode = MODE_BOUNCE;
		else if (!strcmp(value, "shared"))
			kernel.mode = MODE_SHARED;
	}
	fclose(f);
	if (kernel.mode == MODE_NONE) {
		errno = EINVAL;
		fail("/proc/xlibos has no mode that is known");
	}
}

enum mode kernel_mode(void) { return kernel.mode; }
bool rewriting(void) { return kernel.rewriting; }
bool has_table(void) { return kernel.mode >= MODE_BOUNCE; }

static void work(double seconds)
{
	double end = now() + seconds;
	int i;

	report_crashes();
	learn();
	for (bool again = false;; again = true) {
		for (i = 0; tests[i].name; i++) {
			if (again && now() >= end)
				return;
			counts->test = i;
			tests[i].run();
			if (counts->bads)
				return;
		}
	}
}

/* watch waits for the worker, and tells of its end if it was none of its own. */
static void watch(pid_t worker, double seconds)
{
	double limit = now() + seconds + PATIENCE;
	const struct timespec tick = { 1, 0 };
	bool late = false;
	sigset_t child;
	int status;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	while (waitpid(worker, &status, WNOHANG) != worker) {
		if (!late && now() > limit) {
			late = true;
			bad("hangs");
			kill(-worker, SIGKILL);
		}
		sigtimedwait(&child, NULL, &tick);
	}
	kill(-worker, SIGKILL); /* what it left behind */
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	if (WIFSIGNALED(status) && !late)
		bad("ended by signal %d", WTERMSIG(status));
	else if (WIFEXITED(status) && WEXITSTATUS(status) && !counts->bads)
		bad("ended with exit code %d", WEXITSTATUS(status));
}

int main(int argc, char **argv)
{
	long seconds = argc > 1 ? atol(argv[1]) : 0;
	sigset_t child;
	pid_t worker;

	/* What the tests execute. */
	if (argc == 3 && !strcmp(argv[1], "exit"))
		return atoi(argv[2]);
	if (seconds < 1 || seconds > 1000000) {
		fprintf(stderr, "usage: %s SECONDS\n", argv[0]);
		return 2;
	}
	counts = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	ask_kernel();
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	worker = forked();
	if (!worker) {
		setpgid(0, 0);
		sigprocmask(SIG_UNBLOCK, &child, NULL);
		work(seconds);
		_exit(counts->bads ? 1 : 0);
	}
	setpgid(worker, worker); /* whoever is first */
	watch(worker, seconds);
	if (counts->bads) {
		printf("bad: %ld in %ld runs\n", counts->bads, counts->runs);
		return 1;
	}
	printf("ok %ld runs\n", counts->runs);
	return 0;
}
