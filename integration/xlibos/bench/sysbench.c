// SPDX-License-Identifier: GPL-2.0
/*
 * main(), and the clock. One benchmark is run for a time, or a command; its name
 * and figures are printed, one a line: name, value, unit. "min" is the fastest batch
 * of several, which others disturbed least, "mean" that of all.
 *
 * Everything runs on one CPU: how processes spread over several is not the question.
 */
#include "bench.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Before the clock starts: calls are rewritten after the first dozens. */
#define WARM_UP 100

/* Parts that the time is divided into, and how many are measured at least. */
#define BATCHES 20
#define MIN_BATCHES 5

/* Runs of a command that count, at least; one before them does not. */
#define MIN_RUNS 3

#define MAX_SECONDS 3600

void fail(const char *what)
{
	fprintf(stderr, "sysbench: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* now returns seconds of the monotonic clock. */
static double now(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_MONOTONIC, &t))
		fail("clock_gettime");
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* pin takes the last CPU that there is: the first one has the most interrupts. */
static void pin(void)
{
	cpu_set_t all, one;
	int cpu;

	if (sched_getaffinity(0, sizeof(all), &all))
		fail("sched_getaffinity");
	for (cpu = CPU_SETSIZE - 1; cpu > 0 && !CPU_ISSET(cpu, &all); cpu--)
		;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		fail("sched_setaffinity");
}

static struct {
	double min, sum;	/* seconds */
	long n;
} figures;

static void count(double seconds)
{
	if (!figures.n || seconds < figures.min)
		figures.min = seconds;
	figures.sum += seconds;
	figures.n++;
}

/* report prints what was counted, of which each is of so many operations. */
static void report(const char *name, double ops, double per_second, const char *unit)
{
	printf("%s.min %.3f %s\n", name, figures.min / ops * per_second, unit);
	printf("%s.mean %.3f %s\n", name, figures.sum / figures.n / ops * per_second, unit);
	if (fflush(stdout))
		fail("write");
}

static double timed(const struct bench *b, long n)
{
	double begin = now();

	b->run(n);
	return now() - begin;
}

/* batch finds how many operations take at least the given time. */
static long batch(const struct bench *b, double seconds)
{
	long n = 1;

	for (;;) {
		double took = timed(b, n);

		if (took >= seconds)
			return n;
		/* Small steps: the first runs of a new size may be slow. */
		n *= took * 8 < seconds ? 8 : 2;
	}
}

static void measure(const struct bench *b, double seconds)
{
	long n = b->loops;
	double end;

	if (b->setup)
		b->setup();
	b->run(WARM_UP);
	if (!n)
		n = batch(b, seconds / BATCHES);
	end = now() + seconds;
	while (figures.n < MIN_BATCHES || now() < end)
		count(timed(b, n));
	if (b->teardown)
		b->teardown();
	if (b->loops)
		report(b->name, 1, 1e3, "ms");
	else
		report(b->name, n, 1e9, "ns");
}

static void run_command(char **argv)
{
	int status;
	pid_t pid = vfork();

	if (pid < 0)
		fail("vfork");
	if (!pid) {
		execvp(argv[0], argv);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) != pid)
		fail("waitpid");
	if (status) {
		fprintf(stderr, "sysbench: %s: wait status %#x\n", argv[0], status);
		exit(1);
	}
}

static void measure_command(char **argv, double seconds)
{
	double end;

	run_command(argv);
	end = now() + seconds;
	while (figures.n < MIN_RUNS || now() < end) {
		double begin = now();

		run_command(argv);
		count(now() - begin);
	}
	report("command", 1, 1e3, "ms");
}

static const struct bench *find(const struct bench *b, const char *name)
{
	while (b->name && strcmp(b->name, name))
		b++;
	return b->name ? b : NULL;
}

static void usage(void)
{
	fprintf(stderr, "usage: sysbench SECONDS BENCHMARK\n"
			"       sysbench SECONDS run COMMAND...\n"
			"benchmarks:");
	for (const struct bench *b = calls; b->name; b++)
		fprintf(stderr, " %s", b->name);
	for (const struct bench *b = processes; b->name; b++)
		fprintf(stderr, " %s", b->name);
	fprintf(stderr, "\n");
	exit(2);
}

int main(int argc, char **argv)
{
	const struct bench *b;
	double seconds;
	char *end;

	/* The program that the benchmark of exec executes. */
	if (argc == 2 && !strcmp(argv[1], "exit"))
		return 0;
	if (argc < 3)
		usage();
	seconds = strtod(argv[1], &end);
	if (end == argv[1] || *end || !(seconds > 0 && seconds <= MAX_SECONDS))
		usage();
	pin();
	if (!strcmp(argv[2], "run") && argc > 3) {
		measure_command(argv + 3, seconds);
		return 0;
	}
	b = find(calls, argv[2]);
	if (!b)
		b = find(processes, argv[2]);
	if (!b || argc > 3)
		usage();
	measure(b, seconds);
	return 0;
}
