// SPDX-License-Identifier: GPL-2.0
/*
 * System calls within one process. Files are in /dev, and named from there: that is
 * a tmpfs everywhere, whereas the root file system of a container may be a server's,
 * which every path from the root would ask.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096

/* The rounds of the loop "libc", of four calls each. */
#define ROUNDS 20000

/*
 * A call as compilers make it, without the C library around it. It has no stack
 * slots, so that nothing but the call is measured.
 */
#define CALL0(nr) ({							\
	long r_;							\
									\
	asm volatile("mov %1, %%eax\n\tsyscall"				\
		     : "=&a"(r_) : "i"(nr) : "rcx", "r11", "memory");	\
	r_;								\
})
#define CALL3(nr, a, b, c) ({						\
	long r_;							\
									\
	asm volatile("mov %1, %%eax\n\tsyscall"				\
		     : "=&a"(r_) : "i"(nr), "D"(a), "S"(b), "d"(c)	\
		     : "rcx", "r11", "memory");				\
	r_;								\
})

static int zero, null, idle, events;
static pid_t self;

/* in_dev makes /dev the working directory and opens what is read and written. */
static void in_dev(void)
{
	if (chdir("/dev"))
		fail("/dev");
	zero = open("zero", O_RDONLY | O_CLOEXEC);
	null = open("null", O_WRONLY | O_CLOEXEC);
	if (zero < 0 || null < 0)
		fail("open");
}

static void run_getpid(long n)
{
	while (n--)
		if (CALL0(SYS_getpid) <= 0)
			fail("getpid");
}

static void run_read(long n)
{
	char c;

	while (n--)
		if (read(zero, &c, 1) != 1)
			fail("read");
}

static void run_write(long n)
{
	while (n--)
		if (write(null, "", 1) != 1)
			fail("write");
}

static void run_stat(long n)
{
	struct stat st;

	while (n--)
		if (stat("null", &st))
			fail("stat");
}

static void run_open(long n)
{
	while (n--) {
		int fd = open("null", O_RDONLY);

		if (fd < 0 || close(fd))
			fail("open and close");
	}
}

static void run_futex(long n)
{
	static int word;

	while (n--)
		if (CALL3(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1L))
			fail("futex");
}

static void setup_epoll(void)
{
	struct epoll_event e = { .events = EPOLLIN };

	idle = eventfd(0, EFD_CLOEXEC);
	events = epoll_create1(EPOLL_CLOEXEC);
	if (idle < 0 || events < 0 || epoll_ctl(events, EPOLL_CTL_ADD, idle, &e))
		fail("epoll");
}

static void run_epoll(long n)
{
	struct epoll_event e;

	while (n--)
		if (epoll_wait(events, &e, 1, 0))
			fail("epoll_wait");
}

static void run_mmap(long n)
{
	while (n--) {
		char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			fail("mmap");
		*(volatile char *)p = 1;
		if (munmap(p, PAGE))
			fail("munmap");
	}
}

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
	(void)sig;
	signals++;
}

static void setup_signal(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	self = getpid();
	if (sigaction(SIGUSR1, &sa, NULL))
		fail("sigaction");
}

static void run_signal(long n)
{
	while (n--) {
		int before = signals;

		/* It comes before kill returns: there is no other thread. */
		if (kill(self, SIGUSR1) || signals == before)
			fail("kill");
	}
}

static void run_libc(long n)
{
	struct stat st;
	char c;

	while (n--)
		if (read(zero, &c, 1) != 1 || write(null, &c, 1) != 1 || getppid() < 0 || fstat(zero, &st))
			fail("read, write, getppid or fstat");
}

const struct bench calls[] = {
	{ .name = "getpid", .run = run_getpid },
	{ .name = "read", .setup = in_dev, .run = run_read },
	{ .name = "write", .setup = in_dev, .run = run_write },
	{ .name = "stat", .setup = in_dev, .run = run_stat },
	{ .name = "open", .setup = in_dev, .run = run_open },
	{ .name = "futex", .run = run_futex },
	{ .name = "epoll", .setup = setup_epoll, .run = run_epoll },
	{ .name = "mmap", .run = run_mmap },
	{ .name = "signal", .setup = setup_signal, .run = run_signal },
	{ .name = "libc", .setup = in_dev, .run = run_libc, .loops = ROUNDS },
	{ 0 },
};
