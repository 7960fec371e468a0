// SPDX-License-Identifier: GPL-2.0
/*
 * Code of files, whose hot sites are hot in all processes that execute it: the file
 * is what was written to it, for all that read it, and as soon as somebody writes to
 * it, or looks at it as a debugger does, that is what is executed.
 */
#include "torture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#define RW (PROT_READ | PROT_WRITE)
#define RX (PROT_READ | PROT_EXEC)
#define TURNS 4
#define CHILDREN 4

/* Pages of the file, and sites in each, at places that the turn says. */
#define PAGES 3
#define SPACE 64
#define SITES 16

/* Those that all processes can share. */
static const enum form forms[] = { FORM_ABS, FORM_NOP, FORM_STACK, FORM_CANCEL };

static unsigned long seed = 0xc0de;

static struct {
	char path[32];
	unsigned char bytes[PAGES * PAGE];
	struct site site[PAGES][SITES];	/* as if the file began at bytes */
} file;

static void write_file(void)
{
	int fd = open(file.path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || pwrite(fd, file.bytes, sizeof(file.bytes), 0) != sizeof(file.bytes))
		fail("write to a file in /tmp");
	close(fd);
}

/* Other sites at the same places, so that none of them is known any more. */
static void new_sites(void)
{
	static const int nrs[] = { SYS_getpid, SYS_getppid, SYS_getuid, SYS_getpgrp };

	memset(file.bytes, 0xcc, sizeof(file.bytes));
	for (int page = 0; page < PAGES; page++)
		for (int i = 0; i < SITES; i++)
			put_site(file.bytes + page * PAGE + i * SPACE, &file.site[page][i],
				 forms[draw(&seed) % ARRAY_SIZE(forms)], nrs[draw(&seed) % ARRAY_SIZE(nrs)]);
}

static void renew_file(void)
{
	new_sites();
	write_file();
}

static void make_file(void)
{
	int fd;

	strcpy(file.path, "/tmp/torture-XXXXXX");
	fd = mkostemp(file.path, O_CLOEXEC);
	if (fd < 0)
		fail("make a file in /tmp");
	close(fd);
	renew_file();
}

static unsigned char *map_file(void)
{
	int fd = open(file.path, O_RDONLY | O_CLOEXEC);
	void *p = mmap(NULL, sizeof(file.bytes), RX, MAP_PRIVATE, fd, 0);

	if (fd < 0 || p == MAP_FAILED)
		fail("map a file in /tmp");
	close(fd);
	return p;
}

static struct site site_in(const unsigned char *map, int page, int i)
{
	struct site s = file.site[page][i];

	s.call = (void *)(map + ((unsigned char *)s.call - file.bytes));
	s.start = (unsigned char *)map + (s.start - file.bytes);
	return s;
}

static void all_work(const unsigned char *map, int times)
{
	for (int page = 0; page < PAGES; page++)
		for (int i = 0; i < SITES; i++) {
			struct site s = site_in(map, page, i);

			works_n(&s, times);
		}
}

/* How many sites a program would find rewritten if it looked at its own code. */
static int rewritten(const unsigned char *map)
{
	int n = 0;

	for (int page = 0; page < PAGES; page++)
		for (int i = 0; i < SITES; i++) {
			const struct site *s = &file.site[page][i];
			size_t len = s->after - s->start;

			n += memcmp(map + (s->start - file.bytes), s->start, len) != 0;
		}
	return n;
}

static void check_file(void)
{
	unsigned char bytes[sizeof(file.bytes)];
	int fd = open(file.path, O_RDONLY | O_CLOEXEC);
	void *p;

	if (fd < 0 || pread(fd, bytes, sizeof(bytes), 0) != sizeof(bytes))
		fail("read a file in /tmp");
	if (memcmp(bytes, file.bytes, sizeof(bytes)))
		bad("somebody who reads the file sees its code rewritten");
	p = mmap(NULL, sizeof(bytes), PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		fail("mmap");
	if (memcmp(p, file.bytes, sizeof(bytes)))
		bad("somebody who maps the file sees its code rewritten");
	munmap(p, sizeof(bytes));
	close(fd);
}

static pid_t start(void (*run)(void))
{
	pid_t pid = forked();

	if (!pid) {
		learn();
		run();
		_exit(0);
	}
	return pid;
}

/* ended waits for a child, or any if pid is -1, and tells whether it ended as it should. */
static bool ended(pid_t pid, const char *what, int want)
{
	int status = reap(pid);

	if (status != want)
		bad("a child that %s ended with %d, want %d", what, status, want);
	return status == want;
}

static void in_child(void (*run)(void), const char *what)
{
	ended(start(run), what, 0);
}

static void heat_all(void)
{
	all_work(map_file(), HOT);
}

/* What one process has made hot, the next has from its first call. */
static void inherited(void)
{
	make_file();
	for (int turn = 0; turn < TURNS; turn++) {
		unsigned char *map;
		int n;

		in_child(heat_all, "makes sites hot");
		map = map_file();
		all_work(map, 1);
		n = rewritten(map);
		/* One page may have been given up for memory that is needed elsewhere. */
		if (rewriting() && n < SITES * (PAGES - 1))
			bad("a new process has %d of %d sites rewritten", n, PAGES * SITES);
		if (!rewriting() && n)
			bad("%d sites are rewritten", n);
		check_file();
		munmap(map, sizeof(file.bytes));
		renew_file();
	}
	unlink(file.path);
	ran(TURNS);
}

/* debugger_sees tells whether a debugger finds in map what is in the file. */
static bool debugger_sees(unsigned char *map)
{
	unsigned char bytes[64];
	struct iovec here = { bytes, sizeof(bytes) }, there = { map + PAGE, sizeof(bytes) };

	if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) != sizeof(bytes))
		fail("process_vm_readv");
	return !memcmp(bytes, file.bytes + PAGE, sizeof(bytes));
}

static void look_as_a_debugger(void)
{
	unsigned char *map = map_file();

	all_work(map, 1);
	if (!debugger_sees(map))
		bad("a debugger sees rewritten code");
	if (memcmp(map, file.bytes, sizeof(file.bytes)))
		bad("code that a debugger has looked at is rewritten");
	all_work(map, HOT);
	if (!debugger_sees(map))
		bad("a debugger sees code that is rewritten again");
}

static void write_to_memory(void)
{
	unsigned char *map = map_file();
	struct site s = site_in(map, 0, 0), new;

	all_work(map, 1);
	if (mprotect(map, PAGE, RW))
		fail("mprotect");
	if (memcmp(map, file.bytes, PAGE))
		bad("code that can be written is rewritten");
	put_site((unsigned char *)s.call, &new, FORM_ABS, SYS_getppid);
	if (mprotect(map, PAGE, RX))
		fail("mprotect");
	works_n(&new, HOT);
	check_file();
}

/* The file, for what children do together. */
static unsigned char *mapped;

#define ENDED 5

/* The call for the end, without a stack. */
static void end_without_stack(void)
{
	struct site s = site_in(mapped, 0, 0);

	no_crash_reports();
	asm volatile("xor %%esp, %%esp\n\tjmp *%0" : : "r"(s.call), "D"(ENDED));
}

static void without_stack(void)
{
	mapped = map_file();
	for (int n = 0; n < HOT; n++)
		if (!ended(start(end_without_stack), "has no stack", ENDED))
			return;
}

/* Each of those who depart from the file is alone with that. */
static void own_ways(void)
{
	make_file();
	for (int turn = 0; turn < TURNS; turn++) {
		in_child(heat_all, "makes sites hot");
		in_child(look_as_a_debugger, "looks at its code");
		in_child(write_to_memory, "writes to its code");
		in_child(heat_all, "makes sites hot");
		new_sites();
		/* exit is never rewritten; it comes through the same door. */
		put_site(file.bytes, &file.site[0][0], turn & 1 ? FORM_NOP : FORM_ABS,
			 turn & 2 ? SYS_exit : SYS_exit_group);
		write_file();
		in_child(without_stack, "makes calls without a stack");
		renew_file();
	}
	unlink(file.path);
	ran(TURNS);
}

/* Processes have the file mapped while it is written to, but wait for that. */

static struct {
	atomic_int phase, done;	/* the writer's; the children's that have come so far */
} *common;

static void wait_for(atomic_int *n, int value)
{
	double end = now() + 200;

	while (*n < value) {
		if (now() > end) {
			bad("a process waits for others that do not come");
			_exit(1);
		}
		doze(0.0005);
	}
}

static void execute_what_is_written(void)
{
	unsigned long state = getpid();
	unsigned char *map = map_file();

	for (int turn = 0; turn < TURNS; turn++) {
		wait_for(&common->phase, 2 * turn + 1);
		all_work(map, draw(&state) % HOT);
		common->done++;
		wait_for(&common->phase, 2 * turn + 2);
		new_sites();	/* the same as the writer's */
		all_work(map, 1);
		common->done++;
	}
}

static void written(void)
{
	make_file();
	common = mmap(NULL, sizeof(*common), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (common == MAP_FAILED)
		fail("mmap");
	for (int i = 0; i < CHILDREN; i++)
		start(execute_what_is_written);
	for (int turn = 0; turn < TURNS; turn++) {
		common->phase++;
		wait_for(&common->done, CHILDREN * (2 * turn + 1));
		renew_file();
		common->phase++;
		wait_for(&common->done, CHILDREN * (2 * turn + 2));
	}
	for (int i = 0; i < CHILDREN; i++)
		ended(-1, "executes what is written", 0);
	munmap(common, sizeof(*common));
	unlink(file.path);
	ran(TURNS);
}

/* What is cut off is not there any more, and zero is what is left of a page. */

static void beyond_the_end(void)
{
	unsigned char *map = map_file();

	no_crash_reports();
	all_work(map, 1);
	if (truncate(file.path, PAGE + 32))
		fail("truncate");
	for (int i = 32; i < PAGE; i++)
		if (map[PAGE + i]) {
			bad("behind the end of the file is %#x", map[PAGE + i]);
			break;
		}
	((volatile unsigned char *)map)[2 * PAGE];
}

static void truncated(void)
{
	make_file();
	for (int turn = 0; turn < TURNS; turn++) {
		in_child(heat_all, "makes sites hot");
		ended(start(beyond_the_end), "goes beyond the end of the file", 256 + SIGBUS);
		write_file();
	}
	unlink(file.path);
	ran(TURNS);
}

/* Many find the same sites at the same time. */

static void *race(void *from)
{
	unsigned long state = (unsigned long)from;

	for (int n = 0; n < 4 * SITES * PAGES; n++) {
		unsigned long r = draw(&state);
		struct site s = site_in(mapped, r % PAGES, r / PAGES % SITES);

		works_n(&s, 20);
	}
	return NULL;
}

static void race_with_threads(void)
{
	pthread_t t[2];

	mapped = map_file();
	for (unsigned long i = 0; i < 2; i++)
		if (pthread_create(&t[i], NULL, race, (void *)(getpid() * 2 + i)))
			fail("pthread_create");
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

static void raced(void)
{
	make_file();
	for (int turn = 0; turn < 2; turn++) {
		for (int i = 0; i < CHILDREN; i++)
			start(race_with_threads);
		for (int i = 0; i < CHILDREN; i++)
			ended(-1, "races", 0);
		check_file();
		renew_file();
	}
	unlink(file.path);
	ran(2);
}

/* Memory runs short: the test has the kernel do what it does then. */

static int caches;

static void open_caches(void)
{
	caches = open("/kernel/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	/* 4 is for not to write each time to the log. */
	if (caches < 0 || pwrite(caches, "4", 1, 0) != 1)
		fail("open drop_caches in a proc file system at /kernel");
}

static void reclaim(void)
{
	if (pwrite(caches, "3", 1, 0) != 1)
		fail("drop caches");
}

static void reclaim_all_the_time(void)
{
	for (;;) {
		reclaim();
		doze(0.001);
	}
}

static void forgotten(void)
{
	int n = rewritten(map_file());

	if (n)
		bad("after its memory was taken %d sites are rewritten", n);
}

static void reclaimed(void)
{
	pid_t pid;

	open_caches();
	make_file();
	in_child(heat_all, "makes sites hot");
	reclaim();
	in_child(forgotten, "finds nothing rewritten");
	in_child(heat_all, "makes them hot again");
	check_file();
	unlink(file.path);

	pid = start(reclaim_all_the_time);
	raced();
	if (kill(pid, SIGKILL))
		fail("kill");
	ended(pid, "takes memory", 256 + SIGKILL);
	close(caches);
	ran(1);
}

/*
 * Writers that are killed while the code of a process is put back for them. What they
 * did not get to is hot, and has to be known as such: a call may still begin where the
 * syscall instruction was.
 */
#define ROUNDS 20

/* from_inside makes system call nr there. */
long from_inside(long nr, const unsigned char *syscall);
asm(".text\n"
    "from_inside:\n"
    "	mov %rdi, %rax\n"
    "	jmp *%rsi\n");

static void writers_that_are_killed(void)
{
	for (;;) {
		pid_t pid = forked();

		if (!pid) {
			open(file.path, O_WRONLY | O_CLOEXEC);
			_exit(0);
		}
		doze(draw(&seed) % 3000 / 1e6);
		kill(pid, SIGKILL);
		reap(pid);
	}
}

static void call_from_inside(void)
{
	unsigned char *map = map_file();

	for (int times = HOT; times; times /= 2) {
		all_work(map, times);
		for (int page = 0; page < PAGES; page++)
			for (int i = 0; i < SITES; i++) {
				long r = from_inside(SYS_getppid, map + (file.site[page][i].after - 2 - file.bytes));

				if (r != getppid())
					bad("a call from inside of a site: %ld", r);
			}
	}
}

static void killed(void)
{
	pid_t pid;

	make_file();
	/* A form that each process has for itself. */
	for (int page = 0; page < PAGES; page++)
		for (int i = 0; i < SITES; i++)
			put_site(file.bytes + page * PAGE + i * SPACE, &file.site[page][i], FORM_MOV, SYS_getpid);
	write_file();
	/* Before there is anything that it could have, too. */
	pid = start(writers_that_are_killed);
	/* In a new process: what is called while the file is open for writing stays as it is. */
	for (int n = 0; n < ROUNDS; n++)
		in_child(call_from_inside, "has writers that are killed");
	if (kill(pid, SIGKILL))
		fail("kill");
	ended(pid, "kills writers", 256 + SIGKILL);
	unlink(file.path);
	ran(ROUNDS);
}

const struct test tests[] = {
	{ "inherited", inherited },
	{ "own ways", own_ways },
	{ "written", written },
	{ "truncated", truncated },
	{ "killed", killed },
	{ "raced", raced },
	{ "reclaimed", reclaimed },
	{ NULL, NULL },
};
