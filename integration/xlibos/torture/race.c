// SPDX-License-Identifier: GPL-2.0
/*
 * Code that nobody has executed yet, executed by several threads and processes at
 * once: all forms, at all places of a page and across its end, in all kinds of
 * memory.
 */
#include "torture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define THREADS 4
#define CHILDREN 3
#define PAGES 32
#define PER_PAGE 16	/* sites, and one more that crosses its end */
#define SITES (PAGES * PER_PAGE + PAGES - 1)
#define SIZE (PAGES * PAGE)
#define TOGETHER 8	/* sites between which threads wait for each other */

enum memory { PRIVATE, WRITABLE, FILE_PRIVATE, FILE_SHARED, MEMORIES };

static struct site sites[SITES];
static int n_sites;
static unsigned long seed = 88172645463325252ul;

/* put_any writes a site of any form and number. */
static unsigned char *put_any(unsigned char *p)
{
	enum form form;
	int nr;

	do {
		form = draw(&seed) % FORMS;
		/* mmap is slow, so not often */
		nr = checked_nr[draw(&seed) % checked_nrs];
		if (nr == SYS_mmap && draw(&seed) % 16)
			nr = SYS_getpid;
		if (form == FORM_JE)
			nr = SYS_read;
	} while (!usable(form, nr));
	return put_site(p, &sites[n_sites++], form, nr);
}

/*
 * lay_out fills pages with sites that are to be executed at base. What crosses the
 * end of page n begins at all distances from it in turn.
 */
static void lay_out(unsigned char *pages, unsigned char *base)
{
	static unsigned int turn;
	unsigned char *p = pages;

	memset(pages, 0xcc, SIZE);
	n_sites = 0;
	for (int page = 0; page < PAGES; page++) {
		unsigned char *end = pages + (page + 1) * PAGE;

		for (int i = 0; i < PER_PAGE; i++)
			p = put_any(p + draw(&seed) % 200);
		if (end == pages + SIZE)
			break;
		p = put_any(end - 1 - turn++ % (MAX_SITE / 2));
	}
	for (int i = 0; i < n_sites; i++) {
		struct site *s = &sites[i];
		long move = base - pages;

		s->call = (void *)((char *)s->call + move);
		s->start += move;
		s->after += move;
		s->end += move;
	}
}

/* map_file writes code to a new file and maps it. */
static unsigned char *map_file(const unsigned char *code, void *place, int flags)
{
	char path[] = "/tmp/torture-XXXXXX";
	int w = mkostemp(path, O_CLOEXEC), r;
	void *p;

	if (w < 0)
		fail("make a file in /tmp");
	if (write(w, code, SIZE) != SIZE)
		fail("write code to a file");
	r = open(path, O_RDONLY | O_CLOEXEC);
	close(w); /* A file that may be written to is another case. */
	unlink(path);
	if (r < 0)
		fail("open a file in /tmp");
	p = mmap(place, SIZE, PROT_READ | PROT_EXEC, flags | MAP_FIXED, r, 0);
	if (p == MAP_FAILED)
		fail("mmap a file as code");
	close(r);
	return p;
}

static unsigned char *build(enum memory kind)
{
	unsigned char *pages = code_pages(SIZE), *draft;

	if (kind == PRIVATE || kind == WRITABLE) {
		lay_out(pages, pages);
		if (mprotect(pages, SIZE, PROT_READ | PROT_EXEC | (kind == WRITABLE ? PROT_WRITE : 0)))
			fail("mprotect");
		return pages;
	}
	draft = code_pages(SIZE);
	lay_out(draft, pages);
	map_file(draft, pages, kind == FILE_SHARED ? MAP_SHARED : MAP_PRIVATE);
	munmap(draft, SIZE);
	return pages;
}

/* What threads and processes that start together share. */
static struct gate {
	atomic_int waiting, turn;
	atomic_bool stop;
} *gate;

static void meet(int parties)
{
	int turn = gate->turn;

	if (atomic_fetch_add(&gate->waiting, 1) == parties - 1) {
		gate->waiting = 0;
		gate->turn++;
		return;
	}
	/* On one processor the others have to be let run. */
	for (int n = 1; gate->turn == turn && !gate->stop; n++)
		if (n % 1000)
			asm volatile("pause");
		else
			raw0(SYS_sched_yield);
}

static void execute(int parties)
{
	for (int i = 0; i < n_sites; i += TOGETHER) {
		int end = i + TOGETHER < n_sites ? i + TOGETHER : n_sites;

		meet(parties);
		for (int n = 0; n < HOT / 2; n++)
			for (int k = i; k < end; k++)
				if (!site_works(&sites[k])) {
					gate->stop = true; /* nobody has to wait for this one */
					return;
				}
		if (gate->stop)
			return;
	}
}

static void *thread(void *arg)
{
	(void)arg;
	execute(THREADS);
	return NULL;
}

static void stop(void)
{
	gate->stop = true;
}

static void open_gate(void)
{
	if (!gate)
		gate = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (gate == MAP_FAILED)
		fail("mmap");
	memset(gate, 0, sizeof(*gate));
	on_crash = stop;
}

static void by_threads(void)
{
	pthread_t t[THREADS];

	for (enum memory kind = 0; kind < MEMORIES; kind++) {
		unsigned char *pages = build(kind);

		open_gate();
		for (int i = 1; i < THREADS; i++)
			if (pthread_create(&t[i], NULL, thread, NULL))
				fail("pthread_create");
		execute(THREADS);
		for (int i = 1; i < THREADS; i++)
			pthread_join(t[i], NULL);
		munmap(pages, SIZE);
		ran(n_sites);
	}
}

static void by_processes(void)
{
	pid_t child[CHILDREN];

	for (enum memory kind = 0; kind < MEMORIES; kind++) {
		unsigned char *pages = build(kind);

		open_gate();
		for (int i = 0; i < CHILDREN; i++) {
			child[i] = forked();
			if (!child[i]) {
				learn();
				execute(CHILDREN + 1);
				_exit(gate->stop);
			}
		}
		execute(CHILDREN + 1);
		for (int i = 0; i < CHILDREN; i++) {
			int status = reap(child[i]);

			if (status)
				bad("a child ended with %d", status);
		}
		munmap(pages, SIZE);
		ran(n_sites);
	}
}

/* Sites that the parent has made hot, and children of it. */
static void by_late_children(void)
{
	static unsigned int turn;
	unsigned char *pages = build(turn++ % MEMORIES);
	pid_t child[CHILDREN];

	open_gate();
	execute(1);
	for (int i = 0; i < CHILDREN; i++) {
		child[i] = forked();
		if (!child[i]) {
			learn();
			execute(CHILDREN);
			_exit(gate->stop);
		}
	}
	for (int i = 0; i < CHILDREN; i++) {
		int status = reap(child[i]);

		if (status)
			bad("a child ended with %d", status);
	}
	munmap(pages, SIZE);
	ran(n_sites);
}

const struct test tests[] = {
	{ "threads", by_threads },
	{ "processes", by_processes },
	{ "children of hot code", by_late_children },
	{ NULL, NULL },
};
