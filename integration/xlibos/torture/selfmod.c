// SPDX-License-Identifier: GPL-2.0
/*
 * Code that is written again, unmapped, protected, copied, and shared after its sites
 * are hot: what was written last is what is executed.
 */
#include "torture.h"

#include <pthread.h>
#include <stdatomic.h>

#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)
#define RW (PROT_READ | PROT_WRITE)
#define RX (PROT_READ | PROT_EXEC)
#define TURNS 20
#define RACES 4

/* Forms that are a function of no more than this are rewritten in place here. */
#define SPACE 64

static unsigned long seed = 0xfeedface;

static unsigned char *map(int protection, int flags, int fd)
{
	void *p = mmap(NULL, PAGE, protection, flags, fd, 0);

	if (p == MAP_FAILED)
		fail("mmap");
	return p;
}

static void protect(unsigned char *p, int protection)
{
	if (mprotect(p, PAGE, protection))
		fail("mprotect");
}

/* another is a form and a number of those that site_works knows, at p. */
static struct site another(unsigned char *p)
{
	static const int nrs[] = { SYS_getpid, SYS_getppid, SYS_getuid, SYS_getpgrp, SYS_lseek };
	struct site s;
	int form;

	do
		form = draw(&seed) % FORMS;
	while (form == FORM_JE || !usable(form, SYS_getpid));
	memset(p, 0xcc, SPACE);
	put_site(p, &s, form, nrs[draw(&seed) % ARRAY_SIZE(nrs)]);
	return s;
}

/* A compiler at run time that writes its page again and again. */
static void run_time_code(void)
{
	for (int both = 0; both < 2; both++) {
		unsigned char *p = map(both ? RWX : RW, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		struct site s[PAGE / SPACE];

		for (int turn = 0; turn < TURNS; turn++) {
			int n = turn ? draw(&seed) % 16 + 1 : PAGE / SPACE;

			for (int k = 0; k < n; k++) {
				int i = turn ? draw(&seed) % (PAGE / SPACE) : (unsigned long)k;

				s[i] = another(p + i * SPACE);
			}
			if (!both)
				protect(p, RX);
			for (int i = 0; i < PAGE / SPACE; i++)
				works_n(&s[i], draw(&seed) % 4 ? 2 : HOT);
			if (!both)
				protect(p, RW);
		}
		munmap(p, PAGE);
	}
	ran(2 * TURNS);
}

/* Only the number in a hot site is written, a byte or four of them. */
static void new_number(void)
{
	for (int both = 0; both < 2; both++) {
		unsigned char *p = map(both ? RWX : RW, MAP_PRIVATE | MAP_ANONYMOUS, -1);

		for (int turn = 0; turn < TURNS; turn++) {
			enum form form = turn & 1 ? FORM_NOP : FORM_ABS;
			unsigned char *at = p + draw(&seed) % 256 * 8 + turn % 8;
			struct site s;
			int nr = SYS_getppid;

			put_site(at, &s, form, SYS_getpid);
			if (!both)
				protect(p, RX);
			works_n(&s, HOT);
			if (!both)
				protect(p, RW);
			at = s.start + (form == FORM_ABS ? 1 : 3);
			if (turn & 2)
				memcpy(at, &nr, sizeof(nr));
			else
				*(volatile unsigned char *)at = nr;
			s.nr = nr;
			if (!both)
				protect(p, RX);
			works_n(&s, HOT);
			if (!both)
				protect(p, RW);
		}
		munmap(p, PAGE);
	}
	ran(2 * TURNS);
}

/* The same page at two places, one to write and one to execute. */
static void two_mappings(void)
{
	int fd = memfd_create("torture", MFD_CLOEXEC);
	unsigned char *w, *x;

	if (fd < 0 || ftruncate(fd, PAGE))
		fail("memfd_create");
	w = map(RW, MAP_SHARED, fd);
	x = map(RX, MAP_SHARED, fd);
	for (int turn = 0; turn < TURNS; turn++) {
		unsigned int at = draw(&seed) % (PAGE - SPACE);
		struct site s = another(w + at);

		s.start += x - w;
		s.call = (void *)(x + at);
		works_n(&s, HOT);
	}
	munmap(w, PAGE);
	munmap(x, PAGE);
	close(fd);
	ran(TURNS);
}

/* Code of a memfd that a process has for itself, and somebody writes to. */
static void private_memfd(void)
{
	for (int turn = 0; turn < TURNS; turn++) {
		unsigned int at = draw(&seed) % (PAGE - SPACE);
		int fd = memfd_create("torture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		unsigned char page[PAGE], *x;
		struct site s;

		if (fd < 0)
			fail("memfd_create");
		x = NULL;
		for (int again = 0; again < 2; again++) {
			memset(page, 0xcc, PAGE);
			s = another(page + at);
			if (pwrite(fd, page, PAGE, 0) != PAGE)
				fail("write to a memfd");
			if (!x)
				x = map(RX, MAP_PRIVATE, fd);
			s.start += x - page;
			s.call = (void *)(x + at);
			works_n(&s, HOT);
		}
		if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE))
			bad("a memfd whose code was executed cannot be sealed: %m");
		munmap(x, PAGE);
		close(fd);
	}
	ran(TURNS);
}

/* A file's code: shared and private, and written to by write(2). */

static int new_file(char *path)
{
	int fd;

	strcpy(path, "/tmp/torture-XXXXXX");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		fail("make a file in /tmp");
	return fd;
}

/* differs tells whether a file is not what was written to it. */
static bool differs(const char *path, const unsigned char *want, int flags)
{
	unsigned char page[PAGE];
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0 || pread(fd, page, PAGE, 0) != PAGE)
		fail("read a file in /tmp");
	close(fd);
	return memcmp(page, want, PAGE);
}

static void file_code(int flags)
{
	unsigned char page[PAGE] = { 0 }, *p;
	static bool told;
	char path[32];
	int w = new_file(path), r;
	struct site s;

	for (int turn = 0; turn < TURNS; turn++) {
		unsigned int at = draw(&seed) % (PAGE - SPACE);

		s = another(page + at);
		if (w < 0)
			w = open(path, O_RDWR | O_CLOEXEC);
		if (pwrite(w, page, PAGE, 0) != PAGE)
			fail("write to a file in /tmp");
		/* Every second time nobody has it open for writing. */
		if (turn & 1) {
			close(w);
			w = -1;
		}
		r = open(path, O_RDONLY | O_CLOEXEC);
		p = map(RX, flags, r);
		close(r);
		s.start += p - page;
		s.call = (void *)(p + at);
		works_n(&s, HOT);
		if (differs(path, page, O_RDONLY) && !told) {
			note("a reader of a file sees its code rewritten");
			told = true;
		}
		if (differs(path, page, O_RDWR))
			bad("a file that was opened for writing is not what was written");
		/* Linux shows writes in all mappings of a page that nobody changed. */
		memset(page, 0xcc, PAGE);
		s = another(page + at);
		if (w < 0)
			w = open(path, O_RDWR | O_CLOEXEC);
		if (pwrite(w, page, PAGE, 0) != PAGE)
			fail("write to a file in /tmp");
		s.start += p - page;
		s.call = (void *)(p + at);
		works_n(&s, HOT);
		munmap(p, PAGE);
	}
	if (w >= 0)
		close(w);
	unlink(path);
	ran(TURNS);
}

static void shared_file(void) { file_code(MAP_SHARED); }
static void private_file(void) { file_code(MAP_PRIVATE); }

/* Another mapping at the same place, protections, and advice. */
static void mappings(void)
{
	for (int turn = 0; turn < TURNS; turn++) {
		unsigned char *p = map(RW, MAP_PRIVATE | MAP_ANONYMOUS, -1), *q;
		/* Far enough from the page's beginning for all forms to be rewritten. */
		struct site s = another(p + 2 * SPACE);
		char path[32];
		int fd;

		protect(p, RX);
		works_n(&s, HOT);
		/* No access in between. */
		protect(p, PROT_NONE);
		protect(p, RX);
		works_n(&s, HOT);
		/* New memory. */
		q = mmap(p, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		if (q != p)
			fail("mmap");
		s = another(p + 2 * SPACE);
		protect(p, RX);
		works_n(&s, HOT);
		/* The same at another place. */
		q = map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		q = mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q);
		if (q == MAP_FAILED)
			fail("mremap");
		s.start += q - p;
		s.call = (void *)((char *)s.call + (q - p));
		works_n(&s, HOT);
		munmap(q, PAGE);
		/* A file that is read again. */
		fd = new_file(path);
		p = code_pages(PAGE);
		s = another(p);
		if (write(fd, p, PAGE) != PAGE)
			fail("write to a file in /tmp");
		q = map(RX, MAP_PRIVATE, fd);
		s.start += q - p;
		s.call = (void *)((char *)s.call + (q - p));
		works_n(&s, HOT);
		if (madvise(q, PAGE, MADV_DONTNEED))
			fail("madvise");
		works_n(&s, HOT);
		munmap(p, PAGE);
		munmap(q, PAGE);
		close(fd);
		unlink(path);
	}
	ran(TURNS);
}

/*
 * A copy of hot code, made by the program, is code, too. A copied call of a stub leads
 * nowhere, as docs/xlibos.md says.
 */
static void copies(void)
{
	for (int turn = 0; turn < TURNS; turn++) {
		int far = turn & 1 ? MAP_32BIT : 0;
		unsigned char *p = map(RW, MAP_PRIVATE | MAP_ANONYMOUS | far, -1);
		unsigned char *q = map(RW, MAP_PRIVATE | MAP_ANONYMOUS | (turn & 2 ? MAP_32BIT : 0), -1);
		struct site s, copy;
		unsigned int at = draw(&seed) % (PAGE - SPACE);

		do
			s = another(p);
		while (s.form == FORM_MOV && rewriting());
		copy = s;
		protect(p, RX);
		works_n(&s, HOT);
		memcpy(q + at, p, SPACE);
		protect(q, RX);
		copy.call = (void *)(q + at);
		copy.start += q + at - p;
		works_n(&copy, HOT);
		works_n(&s, HOT);
		munmap(p, PAGE);
		munmap(q, PAGE);
	}
	ran(TURNS);
}

/* stubs finds what a kernel with X-LibOS has near the code of a process, or NULL. */
#define STUBS (16L << 20)

static void *stubs(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long begin, end, found = 0;
	char line[256];

	if (!f)
		fail("/proc/self/maps");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx r-xp 00000000 00:00 0 %*c", &begin, &end) == 2 && end - begin == STUBS)
			found = begin;
	fclose(f);
	return (void *)found;
}

/* Two threads find out about a stub at the same time, whether it is there or not. */
static const struct site *both_call;
static volatile bool go;

static void *call_it(void *unused)
{
	(void)unused;
	while (!go)
		;
	works_n(both_call, HOT);
	return NULL;
}

static void call_at_once(const struct site *s)
{
	pthread_t t[2];

	both_call = s;
	go = false;
	for (int i = 0; i < 2; i++)
		if (pthread_create(&t[i], NULL, call_it, NULL))
			fail("pthread_create");
	go = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

/* A program unmaps what it has not mapped, or maps over it. */
static void without_stubs(bool over)
{
	unsigned char *p = map(RW, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct site s[16];
	void *area;

	learn();
	for (unsigned int i = 0; i < ARRAY_SIZE(s); i++)
		put_site(p + (2 + i) * SPACE, &s[i], FORM_MOV, SYS_getpid);
	protect(p, RX);
	for (unsigned int i = 0; i < ARRAY_SIZE(s); i++)
		works_n(&s[i], HOT);
	area = stubs();
	if (!area) {
		if (rewriting())
			bad("no stubs in a process's maps");
		_exit(0);
	}
	if (over) {
		if (mmap(area, STUBS, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != area)
			fail("mmap over stubs");
	} else if (munmap(area, STUBS)) {
		fail("munmap stubs");
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(s); i++)
		call_at_once(&s[i]);
	_exit(0);
}

static void no_stubs(void)
{
	for (int over = 0; over < 2; over++) {
		pid_t pid = forked();
		int status;

		if (!pid)
			without_stubs(over);
		status = reap(pid);
		if (status)
			bad("a process without stubs ended with %d", status);
	}
	ran(2);
}

/* A child's changes are not its parent's, and the other way round. */
static void after_fork(void)
{
	for (int turn = 0; turn < TURNS; turn++) {
		unsigned char *p = map(turn & 1 ? RWX : RW, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		struct site s = another(p);
		pid_t pid;
		int status;

		protect(p, turn & 1 ? RWX : RX);
		works_n(&s, HOT);
		pid = forked();
		if (!pid || turn & 2) {
			if (!pid)
				learn();
			protect(p, RW);
			s = another(p);
			protect(p, turn & 1 ? RWX : RX);
		}
		works_n(&s, HOT);
		if (!pid)
			_exit(!works_n(&s, HOT));
		status = reap(pid);
		if (status)
			bad("the child ended with %d", status);
		works_n(&s, HOT);
		munmap(p, PAGE);
	}
	ran(TURNS);
}

/*
 * One thread writes a number, in one aligned store, while others make the call: they
 * make the old or the new one.
 */
static atomic_bool over;
static struct site racing;

static void *race(void *unused)
{
	long pid = getpid(), ppid = getppid();

	(void)unused;
	while (!over) {
		long r = call0(&racing);

		if (r != pid && r != ppid) {
			bad("%s: result %ld, want %ld or %ld", form_name[racing.form], r, pid, ppid);
			break;
		}
	}
	return NULL;
}

static void raced(void)
{
	unsigned char *p = map(RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	for (int turn = 0; turn < RACES; turn++) {
		pthread_t t[2];
		unsigned char *number;

		put_site(p + turn * SPACE + turn % 8, &racing, FORM_ABS, SYS_getpid);
		number = racing.start + 1;
		over = false;
		for (int i = 0; i < 2; i++)
			if (pthread_create(&t[i], NULL, race, NULL))
				fail("pthread_create");
		/* On one processor each time costs the others' slices. */
		for (int n = 0; n < 20; n++) {
			__atomic_store_n(number, n & 1 ? SYS_getpid : SYS_getppid, __ATOMIC_SEQ_CST);
			raw0(SYS_sched_yield);
		}
		over = true;
		for (int i = 0; i < 2; i++)
			pthread_join(t[i], NULL);
	}
	munmap(p, PAGE);
	ran(RACES);
}

const struct test tests[] = {
	{ "code made at run time", run_time_code },
	{ "new numbers", new_number },
	{ "two mappings", two_mappings },
	{ "private memfd", private_memfd },
	{ "shared file", shared_file },
	{ "private file", private_file },
	{ "mappings", mappings },
	{ "copies", copies },
	{ "without stubs", no_stubs },
	{ "after a fork", after_fork },
	{ "raced", raced },
	{ NULL, NULL },
};
